"""The code that travels to a cluster."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from fruits_assets.resources.emr.aws import is_not_there
from fruits_assets.resources.emr.places import bucket_and_key

_PACKAGE = Path(__file__).parents[2]
_STEP_SCRIPT = Path(__file__).with_name("step_script.py")


def code_archive() -> bytes:
    """`stages/`, `photos/` and `mobilenet/extractor.py` as a zip, the same bytes for the same code."""
    files = [
        _PACKAGE / "__init__.py",
        _PACKAGE / "mobilenet" / "__init__.py",
        _PACKAGE / "mobilenet" / "extractor.py",
        *sorted((_PACKAGE / "photos").rglob("*.py")),
        *sorted((_PACKAGE / "stages").glob("*.py")),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            # A ZipInfo of its own has a fixed date.
            name = zipfile.ZipInfo(str(file.relative_to(_PACKAGE.parent)))
            archive.writestr(name, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def upload_code(s3: Any, staging_uri: str) -> tuple[str, str]:
    """URIs of the zip and of the script that runs it, uploaded if this content is not there yet."""
    uris = []
    for suffix, content in ((".zip", code_archive()), (".py", _STEP_SCRIPT.read_bytes())):
        digest = hashlib.sha256(content).hexdigest()[:16]
        bucket, prefix = bucket_and_key(staging_uri)
        key = f"{prefix}/code/fruits_assets-{digest}{suffix}".lstrip("/")
        try:
            s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if not is_not_there(error):
                raise
            s3.put_object(Bucket=bucket, Key=key, Body=content)
        uris.append(f"s3://{bucket}/{key}")
    return uris[0], uris[1]
