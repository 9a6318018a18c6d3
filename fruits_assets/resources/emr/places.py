"""Places that are refused: outside the EU, or not encrypted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from fruits_assets.resources.emr.errors import EmrError

# Member states only: what is stored there stays under the GDPR.
EU_REGIONS = ("eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-3")


class Places:
    """Looks at buckets, once at each.

    Args:
        s3: a client of S3.
        allow_non_eu: the decision that regions outside the EU will do.
    """

    def __init__(self, s3: Any, allow_non_eu: bool) -> None:
        self._s3 = s3
        self._allow_non_eu = allow_non_eu
        self._accepted: set[str] = set()

    def refuse_region(self, what: str, region: str) -> None:
        """Raise for a region outside the EU, unless that is allowed."""
        if region not in EU_REGIONS and not self._allow_non_eu:
            raise EmrError(
                f"{what}: {region} is not in the EU ({', '.join(EU_REGIONS)}). Photos may show persons, and "
                "the GDPR restricts where they go. FRUITS_EMR_ALLOW_NON_EU_REGION=true takes the decision."
            )

    def refuse(self, uris: Mapping[str, str]) -> None:
        """Raise for a bucket that is missing, outside the EU or without encryption.

        Args:
            uris: by what they are for, which the message names.
        """
        for what, uri in uris.items():
            bucket, _ = bucket_and_key(uri)
            if bucket not in self._accepted:
                what = f"{what}={uri}: bucket {bucket}"
                self.refuse_region(what, self._region_of(bucket, what))
                self._refuse_unencrypted(bucket, what)
                self._accepted.add(bucket)

    def _region_of(self, bucket: str, what: str) -> str:
        # Not by its location constraint, which only its owner may ask for, and which for Ireland may be EU.
        try:
            answer = self._s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            answer = error.response
            if answer["Error"]["Code"] in ("404", "NoSuchBucket"):
                raise EmrError(f"{what} does not exist.") from error
        # The answer to somebody who may not list the bucket has the region as well.
        region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if region is None:
            raise EmrError(f"{what} cannot be looked at: {answer.get('Error', {}).get('Message')}")
        return str(region)

    def _refuse_unencrypted(self, bucket: str, what: str) -> None:
        try:
            self._s3.get_bucket_encryption(Bucket=bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "AccessDenied":
                return  # of another account; whatever came since 2023, S3 has encrypted by itself
            if code != "ServerSideEncryptionConfigurationNotFoundError":
                raise
            raise EmrError(
                f"{what} is not encrypted. Switch its default encryption on, or use the bucket of "
                "bootstrap/emr-stack.yaml."
            ) from error


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Of an s3:// URI, without a slash at the end.

    Raises:
        EmrError: it is another one.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        raise EmrError(
            f"'{uri}' is not on S3, where a cluster could reach it. With FRUITS_SPARK=emr, FRUITS_IMAGES and "
            "FRUITS_LAKE are s3:// prefixes."
        )
    return parts.netloc, uri.removeprefix(f"s3://{parts.netloc}").strip("/")


def s3_uris(value: Any) -> Iterator[str]:
    """Those that stand anywhere in a value made of dictionaries, lists and text."""
    if isinstance(value, str):
        if value.startswith("s3://"):
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from s3_uris(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from s3_uris(part)
