from copy import deepcopy

import pytest

from cluster.aws_firewall import close_ssh_to_the_world, main
from cluster.errors import ConfigError

INSIDE = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}], "IpRanges": []}
RAYS = [{"Key": "ray-autoscaler", "Value": "true"}]


def ssh(*cidrs: str, v6: tuple[str, ...] = ()) -> dict:
    return {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": cidr} for cidr in cidrs],
        "Ipv6Ranges": [{"CidrIpv6": cidr} for cidr in v6],
    }


class FakeEC2:
    """One security group that applies what it is told, as EC2 does."""

    def __init__(self, *rules: dict, tags: list[dict] = RAYS) -> None:
        self.rules, self.tags = [deepcopy(rule) for rule in rules], tags

    def describe_security_groups(self, *, GroupIds):
        assert list(GroupIds) == ["sg-1"]
        return {"SecurityGroups": [{"GroupId": "sg-1", "IpPermissions": deepcopy(self.rules), "Tags": self.tags}]}

    def authorize_security_group_ingress(self, *, GroupId, IpPermissions):
        self.rules += deepcopy(list(IpPermissions))

    def revoke_security_group_ingress(self, *, GroupId, IpPermissions):
        for removed in IpPermissions:
            for rule in self.rules:
                if all(rule.get(key) == removed[key] for key in ("IpProtocol", "FromPort", "ToPort")):
                    for key in ("IpRanges", "Ipv6Ranges"):
                        rule[key] = [r for r in rule.get(key, []) if r not in removed.get(key, [])]

    def ssh_from(self) -> set[str]:
        return {
            entry.get("CidrIp") or entry["CidrIpv6"]
            for rule in self.rules
            if rule["IpProtocol"] == "tcp"
            for entry in rule.get("IpRanges", []) + rule.get("Ipv6Ranges", [])
        }


@pytest.mark.parametrize(
    ("rules", "client", "allowed"),
    [
        pytest.param([ssh("0.0.0.0/0")], "203.0.113.7", {"203.0.113.7/32"}, id="nothing named: the caller alone"),
        pytest.param([ssh("0.0.0.0/0", v6=("::/0",))], "2001:db8::1", {"2001:db8::1/128"}, id="the same over IPv6"),
        pytest.param([ssh("0.0.0.0/0", "198.51.100.0/24")], "198.51.100.9", {"198.51.100.0/24"}, id="named network"),
        pytest.param([ssh("0.0.0.0/0"), ssh("198.51.100.0/24")], "198.51.100.9", {"198.51.100.0/24"}, id="own rule"),
    ],
)
def test_world_loses_ssh_and_the_caller_keeps_it(rules, client, allowed):
    ec2 = FakeEC2(INSIDE, *rules)
    assert close_ssh_to_the_world(ec2, ["sg-1"], client) == ["sg-1"]
    assert ec2.ssh_from() == allowed
    assert ec2.rules[0] == INSIDE
    assert close_ssh_to_the_world(ec2, ["sg-1"], client) == []


def test_caller_outside_the_named_network_is_refused_and_nothing_changes():
    ec2 = FakeEC2(INSIDE, ssh("0.0.0.0/0", "198.51.100.0/24"))
    with pytest.raises(ConfigError, match=r"comes from 203\.0\.113\.7: closing the rest would lock you out"):
        close_ssh_to_the_world(ec2, ["sg-1"], "203.0.113.7")
    assert ec2.ssh_from() == {"0.0.0.0/0", "198.51.100.0/24"}


def test_group_that_ray_did_not_make_is_left_alone():
    ec2 = FakeEC2(ssh("0.0.0.0/0"), tags=[])
    assert close_ssh_to_the_world(ec2, ["sg-1"], "203.0.113.7") == []
    assert ec2.ssh_from() == {"0.0.0.0/0"}


def test_command_outside_ssh_is_refused(monkeypatch, caplog):
    monkeypatch.delenv("SSH_CLIENT", raising=False)
    assert main() == 2
    assert "run this over ssh" in caplog.text
