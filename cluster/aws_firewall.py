"""Close ssh to the world on the security group that Ray made. Runs on the head node, as the last step of its setup.

Ray's launcher opens port 22 of a group that it creates to 0.0.0.0/0 and can only add rules to that
(``ray/autoscaler/_private/aws/config.py``, ``_create_default_inbound_rules``). This removes the rule again and leaves
the addresses named under ``provider.security_group.IpPermissions`` in ``aws.yaml``; where none is named, the one
address from which ``ray up`` was run. It never touches a group that Ray did not create, and never locks out the
address it is called from.
"""

import http.client
import importlib
import ipaddress
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cluster.errors import ClusterError, ConfigError

_LOG = logging.getLogger(__name__)
_METADATA_HOST = "169.254.169.254"
_TIMEOUT_S = 5.0
_SSH_PORT = 22
_WORLD = ("0.0.0.0/0", "::/0")


class EC2(Protocol):
    """The part of boto3's EC2 client that is used."""

    def describe_security_groups(self, *, GroupIds: Sequence[str]) -> Mapping[str, Any]:
        """Rules and tags of the groups."""
        ...

    def authorize_security_group_ingress(self, *, GroupId: str, IpPermissions: Sequence[Mapping[str, Any]]) -> object:
        """Add rules."""
        ...

    def revoke_security_group_ingress(self, *, GroupId: str, IpPermissions: Sequence[Mapping[str, Any]]) -> object:
        """Remove rules."""
        ...


def close_ssh_to_the_world(ec2: EC2, group_ids: Sequence[str], client_address: str) -> list[str]:
    """Replace world-open ssh rules by narrow ones in the groups that Ray created.

    Args:
        ec2: EC2 client of the cluster's region.
        group_ids: security groups of the head node.
        client_address: IP address from which the cluster is being set up; it keeps its access.

    Returns:
        Ids of the groups that were changed.

    Raises:
        ConfigError: if addresses were named, but not this one: closing the rest would lock the user out.
    """
    client = ipaddress.ip_address(client_address)
    changed = []
    for group in ec2.describe_security_groups(GroupIds=group_ids)["SecurityGroups"]:
        ssh = [rule for rule in group["IpPermissions"] if _covers_ssh(rule)]
        open_rules = [narrowed for rule in ssh if (narrowed := _only_world(rule))]
        if not open_rules:
            continue
        if {"Key": "ray-autoscaler", "Value": "true"} not in group.get("Tags", []):
            _LOG.warning("security group %s lets the world use ssh; it is not Ray's, so it stays so", group["GroupId"])
            continue
        named = [cidr for rule in ssh for cidr in _cidrs(rule) if cidr not in _WORLD]
        if not named:
            ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[_rule_for(client)])
        elif not any(client in ipaddress.ip_network(cidr, strict=False) for cidr in named):
            raise ConfigError(
                f"provider.security_group.IpPermissions allows ssh from {', '.join(named)}, but this command comes "
                f"from {client}: closing the rest would lock you out; add {client} there, or remove the entry"
            )
        ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=open_rules)
        changed.append(group["GroupId"])
    return changed


def _covers_ssh(rule: Mapping[str, Any]) -> bool:
    return bool(rule["IpProtocol"] == "tcp" and rule["FromPort"] <= _SSH_PORT <= rule["ToPort"])


def _cidrs(rule: Mapping[str, Any]) -> list[str]:
    return [r["CidrIp"] for r in rule.get("IpRanges", [])] + [r["CidrIpv6"] for r in rule.get("Ipv6Ranges", [])]


def _only_world(rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same rule, reduced to the ranges that mean everybody."""
    v4 = [{"CidrIp": cidr} for cidr in _cidrs(rule) if cidr == _WORLD[0]]
    v6 = [{"CidrIpv6": cidr} for cidr in _cidrs(rule) if cidr == _WORLD[1]]
    ranges = {key: value for key, value in (("IpRanges", v4), ("Ipv6Ranges", v6)) if value}
    if not ranges:
        return None
    return {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort")} | ranges


def _rule_for(client: ipaddress.IPv4Address | ipaddress.IPv6Address) -> dict[str, Any]:
    cidr = {"CidrIp" if client.version == 4 else "CidrIpv6": str(ipaddress.ip_network(client))}
    return {
        "IpProtocol": "tcp",
        "FromPort": _SSH_PORT,
        "ToPort": _SSH_PORT,
        "IpRanges" if client.version == 4 else "Ipv6Ranges": [cidr | {"Description": "ray up"}],
    }


def _instance_metadata(*paths: str) -> list[str]:
    """Read the instance metadata service, version 2 (a token first)."""
    connection = http.client.HTTPConnection(_METADATA_HOST, timeout=_TIMEOUT_S)
    try:
        connection.request("PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        token = connection.getresponse().read().decode()
        values = []
        for path in paths:
            connection.request("GET", f"/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token})
            values.append(connection.getresponse().read().decode())
        return values
    finally:
        connection.close()


def main() -> int:
    """Narrow ssh on the groups of the instance that this runs on.

    Returns:
        0, or 2 with the reason on standard error.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    client_address = os.environ.get("SSH_CLIENT", "").split(" ")[0]
    if not client_address:
        _LOG.error("SSH_CLIENT is not set: run this over ssh, as `ray up cluster/aws.yaml` does")
        return ClusterError.exit_code
    try:
        instance_id, region = _instance_metadata("instance-id", "placement/region")
        # By name: boto3 is on the head node of an AWS cluster only, never a dependency of the project.
        ec2 = importlib.import_module("boto3").client("ec2", region_name=region)
        reservations = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        group_ids = [group["GroupId"] for group in reservations[0]["Instances"][0]["SecurityGroups"]]
        changed = close_ssh_to_the_world(ec2, group_ids, client_address)
    except ConfigError as error:
        _LOG.error("%s", error)
        return error.exit_code
    _LOG.info("ssh is closed to the world (%s)", f"changed {', '.join(changed)}" if changed else "it was already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
