"""Tear down what an EMR deployment costs by the hour: its clusters first, then its stacks.

A stack that is deleted under a living cluster is held by its security group, and has lost the roles by which
EMR would end it. So this ends the clusters and waits before it deletes anything. It then says what stays, and
what that costs. Run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")
NOT_ENDED = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]
CLUSTER_WAIT_S = 30 * 60
STACK_WAIT_S = 30 * 60
# USD, of S3 in eu-west-3 and of KMS, as of November 2026.
S3_GB_MONTH = 0.024
KEY_MONTH = 1.0
# Of 1,000 versions each. More would take minutes to count.
PAGES_COUNTED = 100


class TearDownError(RuntimeError):
    """Something is left that goes on costing; the message says what, and what to do about it."""


class Deployment:
    """A stack of `bootstrap/emr-stack.yaml`, by what it made."""

    def __init__(self, stack: str, region: str, poll_s: float = 10) -> None:
        self.stack, self.region, self.poll_s = stack, region, poll_s
        self._cloudformation = boto3.client("cloudformation", region_name=region)
        self._emr = boto3.client("emr", region_name=region)
        self._s3 = boto3.client("s3", region_name=region)
        self._made = self._resources()

    @property
    def exists(self) -> bool:
        """Whether there is such a stack."""
        return bool(self._made)

    def _resources(self) -> dict[str, str]:
        """Physical names by those of the template, of what is still there."""
        try:
            found = self._cloudformation.describe_stack_resources(StackName=self.stack)["StackResources"]
        except ClientError as error:
            if not _is_missing_stack(error):
                raise
            return {}
        there = (
            it for it in found if it.get("PhysicalResourceId") and it["ResourceStatus"] != "DELETE_COMPLETE"
        )
        return {it["LogicalResourceId"]: it["PhysicalResourceId"] for it in there}

    def _living(self) -> Iterator[dict[str, Any]]:
        for page in self._emr.get_paginator("list_clusters").paginate(ClusterStates=NOT_ENDED):
            for cluster in page["Clusters"]:
                yield self._emr.describe_cluster(ClusterId=cluster["Id"])["Cluster"]

    def _is_ours(self, cluster: Mapping[str, Any]) -> bool:
        """Whether it runs in this stack's security group, whatever its name."""
        group = cluster.get("Ec2InstanceAttributes", {}).get("EmrManagedMasterSecurityGroup")
        return group is not None and group == self._made.get("ClusterSecurityGroup")

    def others(self, name: str) -> list[str]:
        """Living clusters of that name which do not depend on this stack."""
        return [it["Id"] for it in self._living() if it["Name"] == name and not self._is_ours(it)]

    def end_clusters(self) -> None:
        """Terminate the clusters that depend on this stack, and wait until their nodes are gone.

        Raises:
            TearDownError: one is protected, or has not ended in half an hour.
        """
        ours = [it for it in self._living() if self._is_ours(it)]
        protected = [it["Id"] for it in ours if it["TerminationProtected"]]
        if protected:
            raise TearDownError(
                f"Protected from termination: {', '.join(protected)}. If it may go: aws emr "
                f"modify-cluster-attributes --no-termination-protected --cluster-ids {' '.join(protected)}"
            )
        for cluster in ours:
            print(f"Terminating cluster {cluster['Id']} ({cluster['Name']}), {cluster['Status']['State']}")
            self._emr.terminate_job_flows(JobFlowIds=[cluster["Id"]])
        deadline = time.monotonic() + CLUSTER_WAIT_S
        for cluster in ours:
            while (state := self._state(cluster["Id"])) not in ENDED:
                if time.monotonic() > deadline:
                    raise TearDownError(
                        f"Cluster {cluster['Id']} is still {state}. Run this again in a while."
                    )
                time.sleep(self.poll_s)
            print(f"Cluster {cluster['Id']} is {state}")

    def _state(self, cluster_id: str) -> str:
        return str(self._emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"])

    def what_stays(self) -> list[str]:
        """The bucket and its key with their price, a line each, unless they are gone."""
        # A bucket of a stack that is gone is known by the name that CloudFormation gives it.
        names = [it["Name"] for it in self._s3.list_buckets()["Buckets"]]
        bucket = self._made.get("Bucket") or next(
            (it for it in names if it.startswith(f"{self.stack}-bucket-")), ""
        )
        key, stays = self._made.get("Key"), []
        if bucket in names:
            stays.append(f"bucket {bucket}: {self._stored(bucket)}")
            rules = self._s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"][
                "Rules"
            ]
            key = rules[0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
        if key:
            described = boto3.client("kms", region_name=self.region).describe_key(KeyId=key)["KeyMetadata"]
            # One that is scheduled for deletion costs nothing.
            if described["KeyState"] != "PendingDeletion":
                stays.append(
                    f"key {described['Arn']}: {KEY_MONTH:.0f} USD a month; nothing can be read without it"
                )
        return stays

    def _stored(self, bucket: str) -> str:
        """How much is in the bucket, versions that were deleted or overwritten included."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
        count, size, more = 0, 0, ""
        for page in islice(pages, PAGES_COUNTED):
            count += len(page.get("Versions", []))
            size += sum(it["Size"] for it in page.get("Versions", []))
            more = "more than " if page["IsTruncated"] else ""
        cost = size / 1e9 * S3_GB_MONTH
        return f"{more}{size / 1e6:,.1f} MB in {count} versions of objects, {more}{cost:.2f} USD a month"


def delete_stack(name: str, region: str, poll_s: float) -> None:
    """Delete a stack, if there is one, and wait until it is gone. What its template retains stays.

    Raises:
        TearDownError: with what could not be deleted, and why.
    """
    cloudformation = boto3.client("cloudformation", region_name=region)
    try:
        # By its identifier, since a deleted stack is not found by its name.
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
    except ClientError as error:
        if not _is_missing_stack(error):
            raise
        print(f"There is no stack {name} in {region}")
        return
    print(f"Deleting stack {name}")
    cloudformation.delete_stack(StackName=stack)
    deadline = time.monotonic() + STACK_WAIT_S
    while (state := _status(cloudformation, stack)) != "DELETE_COMPLETE":
        if state == "DELETE_FAILED" or time.monotonic() > deadline:
            events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
            reasons = [
                f"  {it['LogicalResourceId']}: {it.get('ResourceStatusReason', 'no reason given')}"
                for it in events
                if it.get("ResourceStatus") == "DELETE_FAILED"
            ]
            again = "What is still in use becomes free within minutes: run this again then."
            raise TearDownError("\n".join([f"Stack {name} is {state}.", *reasons, again]))
        time.sleep(poll_s)
    print(f"Stack {name} is deleted")


def _status(cloudformation: Any, stack: str) -> str:
    return str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])


def _is_missing_stack(error: ClientError) -> bool:
    # CloudFormation has no code of its own for it.
    return "does not exist" in str(error)


def tear_down(deployment: Deployment, budget_region: str, cluster_name: str) -> None:
    """End the clusters, delete the stacks, and say what stays.

    Raises:
        TearDownError: something is left that goes on costing by the hour.
    """
    if deployment.exists:
        deployment.end_clusters()
    delete_stack(deployment.stack, deployment.region, deployment.poll_s)
    delete_stack(f"{deployment.stack}-budget", budget_region, deployment.poll_s)
    if stays := deployment.what_stays():
        print("\n".join(["What stays, for bootstrap/README.md to erase:", *(f"  {it}" for it in stays)]))
    if others := deployment.others(cluster_name):
        raise TearDownError(
            f"Clusters called {cluster_name} that do not belong to this stack are alive, and cost. "
            f"If they are yours: aws emr terminate-clusters --cluster-ids {' '.join(others)}"
        )


def main(arguments: list[str] | None = None) -> None:
    """Tear down, from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stack", default="fruits-assets", help="name of the stack")
    parser.add_argument(
        "--region", default=boto3.Session().region_name, help="its region, if not AWS_DEFAULT_REGION"
    )
    parser.add_argument("--budget-region", default="eu-west-1", help="region of the stack <stack>-budget")
    parser.add_argument("--poll-s", type=float, default=10, help="seconds between looks")
    options = parser.parse_args(arguments)
    if options.region is None:
        sys.exit("In which region? Read the stack's settings with `. ./fruits-emr.env`, or give --region.")
    cluster_name = os.environ.get("FRUITS_EMR_CLUSTER_NAME", "fruits-assets")
    try:
        tear_down(
            Deployment(options.stack, options.region, options.poll_s), options.budget_region, cluster_name
        )
    except (TearDownError, BotoCoreError, ClientError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
