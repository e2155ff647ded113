"""The network of the subnets that jobs run in: a way to the services that a host needs, or endpoints for them.

Security groups are judged by what they surely let through: where that cannot be told, nothing is said to be wrong.
Network ACLs, firewalls and policies of endpoints are not looked at.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..aws import identity_calls
from ..aws.session import ServiceRefused
from ..definitions import named_steps
from ..errors import SmsshError
from .checks import Check, Finding, hint, ok, problem, unknown
from .job import in_use
from .pipeline import described

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .case import Case

__all__ = ["CHECKS", "Place"]

ADMINISTRATOR = "an administrator of the network"
HTTPS = 443
EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Place:
    """Where the containers run.

    Attributes:
        subnets: the ids of their subnets; () where they have SageMaker's own network.
        groups: the ids of their security groups; () where none is known.
        native: whether they are entered by SageMaker's remote debugging alone.
        why: without subnets, why there is nothing to look at.
        networks: how many the steps of a pipeline have, of which only one can be looked at.
    """

    subnets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    native: bool = False
    why: str = ""
    networks: int = 1


@dataclass(frozen=True)
class Network:
    """What EC2 says of a place.

    Attributes:
        vpc: the id of the VPC.
        cidrs: the addresses of the subnets.
        ways: per subnet, how its default route leads out: nat, internet, other, blackhole or none.
        tables: per subnet, the id of its route table.
        endpoints: the endpoints of the VPC, by the last part of their service's name.
        shared: whether another account owns the VPC.
    """

    vpc: str
    cidrs: tuple[str, ...]
    ways: dict[str, str]
    tables: dict[str, str]
    endpoints: dict[str, list[dict[str, Any]]]
    shared: bool

    @property
    def inside(self) -> list[str]:
        """The subnets that surely have no way to the internet."""
        return [subnet for subnet, way in self.ways.items() if way not in ("nat", "other")]

    @property
    def unsure(self) -> list[str]:
        """Those of which that cannot be told: a route of theirs leads to another network."""
        return [subnet for subnet, way in self.ways.items() if way == "other"]


_NO_WAY = {
    "none": "no default route",
    "blackhole": "a default route to something that is gone",
    "internet": "a default route to an internet gateway, which SageMaker's interfaces cannot use: they have no public "
    "address",
}


def subnets(case: Case) -> Finding:
    """Whether the subnets are there, in one VPC."""
    place = _place(case)
    if not place.subnets:
        return _elsewhere(case)
    try:
        found = _subnets(case)
    except ServiceRefused as error:
        if not error.code.startswith("InvalidSubnetID"):
            raise
        return problem(
            f"there is no such subnet in {case.aws.region}: {error.message}",
            fix="name subnets that exist, in the region of the jobs",
            who="the person who submits the job",
        )
    vpcs = sorted({str(each["VpcId"]) for each in found})
    if len(vpcs) > 1:
        return problem(
            f"the subnets {', '.join(place.subnets)} are in {len(vpcs)} VPCs: {', '.join(vpcs)}",
            fix="name subnets of one VPC",
            who="the person who submits the job",
        )
    verb = "are" if len(found) > 1 else "is"
    return ok(f"{', '.join(place.subnets)} {verb} in {vpcs[0]}")


def endpoints(case: Case) -> Finding:
    """A way to the internet by NAT, or else endpoints for each service."""
    if not _place(case).subnets:
        return _elsewhere(case)
    network = _network(case)
    region = case.aws.region
    missing: list[str] = []
    unsure: list[str] = []
    for subnet in network.ways:
        lacks = [each for each in _services(case) if not _serves(network, each, subnet)]
        if subnet in network.inside:
            missing += lacks
        elif subnet in network.unsure:
            unsure += lacks
    details = tuple(f"{subnet}: {_NO_WAY.get(way, way)}" for subnet, way in network.ways.items())
    if missing and network.shared:
        return unknown(
            f"cannot tell whether {network.vpc} has endpoints for {', '.join(dict.fromkeys(missing))}: it is shared by "
            "another account, which alone sees all of them",
            *details,
            fix="run it with credentials of the account that owns the VPC",
            who=ADMINISTRATOR,
        )
    if missing:
        names = [f"com.amazonaws.{region}.{each}" for each in dict.fromkeys(missing)]
        subnet = network.inside[0]
        s3 = "s3" in missing
        return problem(
            f"{network.vpc} has no endpoint for {', '.join(dict.fromkeys(missing))} that {subnet} can use, and "
            f"{subnet} has {_NO_WAY[network.ways[subnet]]}",
            *details,
            fix=f"create {_listed(names)}"
            + (
                f" (s3: a gateway endpoint with the route tables {', '.join(sorted(set(network.tables.values())))})"
                if s3
                else " with private DNS"
            )
            + ", or a default route to a NAT gateway",
            who=ADMINISTRATOR,
        )
    if unsure:
        return unknown(
            f"cannot tell whether {network.unsure[0]} has a way to {', '.join(dict.fromkeys(unsure))}: its routes "
            "lead to another network",
            *details,
            fix="see whether that has endpoints for these services, or a way to them",
            who=ADMINISTRATOR,
        )
    if network.inside:
        return ok(f"{network.vpc} has endpoints for {', '.join(_services(case))}", *details)
    return ok("each subnet has a default route to NAT, or endpoints for each service", *details)


def private_dns(case: Case) -> Finding:
    """Whether the names of services lead to their endpoints."""
    if not _place(case).subnets:
        return _elsewhere(case)
    network = _network(case)
    if not network.inside:
        return ok("there is another way than by endpoints")
    for service in _services(case):
        found = _interfaces(network, service)
        gateway = service == "s3" and any(
            each.get("VpcEndpointType") == "Gateway" for each in network.endpoints.get("s3", ())
        )
        if found and not gateway and not any(each.get("PrivateDnsEnabled") for each in found):
            name = found[0]["VpcEndpointId"]
            return problem(
                f"the endpoint {name} for {service} has no private DNS: the name of the service does not lead to it",
                fix=f"run `aws ec2 modify-vpc-endpoint --region {case.aws.region} --vpc-endpoint-id {name} "
                "--private-dns-enabled`",
                who=ADMINISTRATOR,
                statement={"Effect": "Allow", "Action": "ec2:ModifyVpcEndpoint", "Resource": "*"},
            )
    for attribute, answer in (
        ("enableDnsSupport", "EnableDnsSupport"),
        ("enableDnsHostnames", "EnableDnsHostnames"),
    ):
        said = identity_calls.call(
            case.aws, "ec2", "describe_vpc_attribute", VpcId=network.vpc, Attribute=attribute
        )
        if not (said.get(answer) or {}).get("Value"):
            option = "--enable-dns-support" if attribute == "enableDnsSupport" else "--enable-dns-hostnames"
            return problem(
                f"{attribute} of {network.vpc} is off: private DNS of its endpoints has no effect",
                fix=f"run `aws ec2 modify-vpc-attribute --region {case.aws.region} --vpc-id {network.vpc} "
                f"{option}`",
                who=ADMINISTRATOR,
                statement={"Effect": "Allow", "Action": "ec2:ModifyVpcAttribute", "Resource": "*"},
            )
    return ok(f"private DNS is on in {network.vpc}")


def job_groups(case: Case) -> Finding:
    """Whether the security groups of the job let HTTPS out."""
    place = _place(case)
    if not place.subnets:
        return _elsewhere(case)
    if not place.groups:
        return hint("no security group was named", fix="add --security-group ID, to have it looked at")
    try:
        rules = list(_rules(case, place.groups, "IpPermissionsEgress"))
    except ServiceRefused as error:
        if not error.code.startswith("InvalidGroup"):
            raise
        return problem(
            f"there is no such security group in {case.aws.region}: {error.message}",
            fix="name security groups that exist, of the subnets' VPC",
            who="the person who submits the job",
        )
    if rules:
        closed = _closed(case, rules)
        if closed is not None:
            return closed
        return ok(f"HTTPS is let out by {', '.join(place.groups)}", *(_shown(each) for each in rules))
    return problem(
        f"no rule of {', '.join(place.groups)} lets HTTPS out (TCP {HTTPS})",
        fix=f"add a rule for outgoing TCP {HTTPS}: to the security groups of the endpoints and the prefix list of S3, "
        f"or to {EVERYWHERE}",
        who=ADMINISTRATOR,
        statement={"Effect": "Allow", "Action": "ec2:AuthorizeSecurityGroupEgress", "Resource": "*"},
    )


def _closed(case: Case, rules: list[dict[str, Any]]) -> Finding | None:
    """A service that rules for outgoing HTTPS surely do not lead to; None if they let all of it out.

    The addresses of endpoints are not looked up: a rule for addresses of the network may be for them.
    """
    groups = ", ".join(_place(case).groups)
    try:
        network = _network(case)
    except SmsshError:  # another check's to say
        return None
    pairs = {str(each.get("GroupId")) for rule in rules for each in rule.get("UserIdGroupPairs") or ()}
    ranges = [str(each.get("CidrIp")) for rule in rules for each in rule.get("IpRanges") or ()]
    if any(rule.get("PrefixListIds") or rule.get("Ipv6Ranges") for rule in rules) or any(
        map(_public, ranges)
    ):
        return None
    for service in _services(case):
        named = [each for each in _interfaces(network, service) if each.get("PrivateDnsEnabled")]
        theirs = [str(group["GroupId"]) for each in named for group in each.get("Groups") or ()]
        if named and (ranges or pairs & set(theirs)):
            continue
        if not named and (
            network.unsure or not all(_serves(network, service, one) for one in network.inside)
        ):
            continue  # that it has no way at all is another check's to say
        where = (
            f"{named[0]['VpcEndpointId']} for {service}"
            if named
            else f"{service}, whose addresses are public"
        )
        return problem(
            f"no rule of {groups} lets HTTPS out (TCP {HTTPS}) to {where}",
            *(_shown(each) for each in rules),
            fix=f"add a rule for outgoing TCP {HTTPS}: to "
            + (
                f"its security group {theirs[0]}"
                if theirs
                else f"the prefix list of S3, or to {EVERYWHERE}"
                if service == "s3"
                else EVERYWHERE
            ),
            who=ADMINISTRATOR,
            statement={"Effect": "Allow", "Action": "ec2:AuthorizeSecurityGroupEgress", "Resource": "*"},
        )
    return None


def _public(addresses: str) -> bool:
    """Whether a range, as a rule has it, has addresses of the internet; a range that is not one may have."""
    try:
        return not ipaddress.ip_network(addresses, strict=False).is_private
    except ValueError:
        return True


def endpoint_groups(case: Case) -> Finding:
    """Whether the security groups of the endpoints let HTTPS in, from the job's subnets."""
    place = _place(case)
    if not place.subnets:
        return _elsewhere(case)
    network = _network(case)
    unsure = ""
    for service in _services(case):
        # Private DNS sends everybody in the VPC there, whatever other way there is.
        for each in _interfaces(network, service):
            if not each.get("PrivateDnsEnabled") and network.inside == []:
                continue
            groups = tuple(str(group["GroupId"]) for group in each.get("Groups") or ())
            rules = list(_rules(case, groups, "IpPermissions"))
            if any(_from(rule, place, network.cidrs) for rule in rules):
                continue
            name = each["VpcEndpointId"]
            if any(_could(rule, place) for rule in rules):
                unsure = f"{name} for {service}"
                continue
            return problem(
                f"the endpoint {name} for {service} lets no HTTPS in (TCP {HTTPS}) from {', '.join(network.cidrs)}: "
                f"see its security groups {', '.join(groups)}",
                fix=f"add a rule to one of them for incoming TCP {HTTPS}, from "
                + (f"the job's security group {place.groups[0]}" if place.groups else f"{network.cidrs[0]}"),
                who=ADMINISTRATOR,
                statement={"Effect": "Allow", "Action": "ec2:AuthorizeSecurityGroupIngress", "Resource": "*"},
            )
    if unsure:
        return unknown(
            f"cannot tell whether the endpoint {unsure} lets the job in: its rules name other security groups or "
            "prefix lists",
            fix="add --security-group ID, or see its rules",
            who=ADMINISTRATOR,
        )
    return ok("the endpoints let HTTPS in from the subnets")


# ------------------------------------------------------------------------------------------------------- what is asked


def _elsewhere(case: Case) -> Finding:
    place = _place(case)
    if place.networks > 1:
        return unknown(
            f"the steps of the pipeline have {place.networks} networks",
            fix="look at each by --subnet and --security-group, which name those of a step",
            who="the person who submits the job",
        )
    return ok(place.why)


def _place(case: Case) -> Place:
    """Where the job runs, the steps of the pipeline do, or what was named."""
    return case.once("place", lambda: _find_place(case))


def _find_place(case: Case) -> Place:
    if case.subnets:
        return Place(tuple(case.subnets), tuple(case.security_groups))
    if case.job_name is not None:
        job = case.job()
        if in_use(case):
            return Place(why="the job's host is online: its network lets it")
        config = (job.described.get("NetworkConfig") or job.described).get("VpcConfig") or {}
        return Place(
            tuple(map(str, config.get("Subnets") or ())),
            tuple(map(str, config.get("SecurityGroupIds") or ())),
            job.native,
            "the job has SageMaker's own way to the internet: no VPC",
        )
    found: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    with contextlib.suppress(ValueError):
        for step, _ in named_steps(json.loads(described(case)["PipelineDefinition"])):
            arguments = step.get("Arguments")
            if not isinstance(arguments, dict):
                continue
            config = (arguments.get("NetworkConfig") or arguments).get("VpcConfig") or {}
            # What is a pipeline variable is known in an execution only.
            named, groups = _texts(config.get("Subnets")), _texts(config.get("SecurityGroupIds"))
            if named:
                found.add((named, groups))
    if len(found) == 1:
        return Place(*found.pop())
    return Place(why="no step of the pipeline names a subnet", networks=max(1, len(found)))


def _texts(value: Any) -> tuple[str, ...]:
    """The texts of a list; none of what is a pipeline variable as a whole."""
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _services(case: Case) -> tuple[str, ...]:
    """The services that are reached from the subnets: SageMaker gets the bundle from S3, and the agent may be there."""
    return ("ssmmessages",) if _place(case).native else ("s3", "ssmmessages", "ssm")


def _subnets(case: Case) -> list[dict[str, Any]]:
    def ask() -> list[dict[str, Any]]:
        answer = identity_calls.call(
            case.aws, "ec2", "describe_subnets", SubnetIds=list(_place(case).subnets)
        )
        return list(answer["Subnets"])

    return case.once("subnets", ask)


def _network(case: Case) -> Network:
    return case.once("network", lambda: _look(case))


def _look(case: Case) -> Network:
    found = _subnets(case)
    vpc = str(found[0]["VpcId"])
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    tables = identity_calls.call(case.aws, "ec2", "describe_route_tables", Filters=of_vpc)["RouteTables"]
    ways, own = {}, {}
    for each in found:
        subnet = str(each["SubnetId"])
        table = _table(tables, subnet)
        own[subnet] = str(table.get("RouteTableId") or "")
        ways[subnet] = _leads_to(table)
    listed: dict[str, list[dict[str, Any]]] = {}
    answer = identity_calls.call(case.aws, "ec2", "describe_vpc_endpoints", Filters=of_vpc)
    for each in answer["VpcEndpoints"]:
        if str(each.get("State", "")).lower() == "available":
            name = str(each["ServiceName"])
            if f".{case.aws.region}." in name:
                listed.setdefault(name.rpartition(".")[2], []).append(each)
    shared = any(each.get("OwnerId") not in (None, case.caller().account) for each in found)
    return Network(vpc, tuple(str(each["CidrBlock"]) for each in found), ways, own, listed, shared)


def _table(tables: list[dict[str, Any]], subnet: str) -> dict[str, Any]:
    """The route table of a subnet: its own, or else the main one of the VPC."""
    main: dict[str, Any] = {}
    for table in tables:
        for each in table.get("Associations") or ():
            if each.get("SubnetId") == subnet:
                return table
            if each.get("Main"):
                main = table
    return main


def _leads_to(table: dict[str, Any]) -> str:
    """Where a table's default route leads to, and other routes that may lead to endpoints elsewhere."""
    found = "none"
    for route in table.get("Routes") or ():
        gateway = str(route.get("GatewayId") or "")
        active = route.get("State") != "blackhole"
        default = route.get("DestinationCidrBlock") == EVERYWHERE
        if default and active and route.get("NatGatewayId"):
            return "nat"
        if default and not active:
            found = "blackhole"
        elif default and gateway.startswith("igw-"):
            found = "internet"
    others = (each for each in table.get("Routes") or () if each.get("State") != "blackhole")
    return "other" if any(map(_leads_elsewhere, others)) else found


def _leads_elsewhere(route: dict[str, Any]) -> bool:
    """Whether a route leads to another network, such as one with endpoints that several VPCs share."""
    gateway = str(route.get("GatewayId") or "")
    if route.get("NatGatewayId"):
        # A half of all addresses, or a prefix list, which may hold all of them.
        return route.get("DestinationCidrBlock") != EVERYWHERE
    if route.get("EgressOnlyInternetGatewayId"):
        return False
    return gateway != "local" and not gateway.startswith(("igw-", "vpce-"))


def _serves(network: Network, service: str, subnet: str) -> bool:
    """Whether the VPC has an endpoint for a service that a subnet can use."""
    if _interfaces(network, service):
        return True
    return any(
        network.tables[subnet] in (each.get("RouteTableIds") or ())
        for each in network.endpoints.get(service, ())
        if each.get("VpcEndpointType") == "Gateway"
    )


def _interfaces(network: Network, service: str) -> list[dict[str, Any]]:
    found = network.endpoints.get(service, ())
    return [each for each in found if each.get("VpcEndpointType") == "Interface"]


# ------------------------------------------------------------------------------------------------------ security groups


def _rules(case: Case, groups: tuple[str, ...], direction: str) -> Iterable[dict[str, Any]]:
    """The rules of security groups that are for HTTPS."""
    if not groups:
        return

    def ask() -> list[dict[str, Any]]:
        answer = identity_calls.call(case.aws, "ec2", "describe_security_groups", GroupIds=list(groups))
        return list(answer["SecurityGroups"])

    for group in case.once(f"groups {' '.join(groups)}", ask):
        for rule in group.get(direction) or ():
            protocol = str(rule.get("IpProtocol"))
            first, last = rule.get("FromPort"), rule.get("ToPort")
            if protocol == "-1" or (
                protocol in ("tcp", "6") and (first is None or int(first) <= HTTPS <= int(last))
            ):
                yield rule


def _from(rule: dict[str, Any], place: Place, cidrs: tuple[str, ...]) -> bool:
    """Whether a rule surely lets in some of the subnets' addresses, or a group of the job."""
    if any(each.get("GroupId") in place.groups for each in rule.get("UserIdGroupPairs") or ()):
        return True
    for each in rule.get("IpRanges") or ():
        with contextlib.suppress(ValueError):
            allowed = ipaddress.ip_network(str(each.get("CidrIp")), strict=False)
            if any(allowed.overlaps(ipaddress.ip_network(cidr)) for cidr in cidrs):
                return True
    return False


def _could(rule: dict[str, Any], place: Place) -> bool:
    """Whether a rule may let in the job, as far as is known here."""
    return bool(rule.get("PrefixListIds")) or (bool(rule.get("UserIdGroupPairs")) and not place.groups)


def _shown(rule: dict[str, Any]) -> str:
    """A rule's other ends."""
    ends = [
        *(str(each.get("CidrIp")) for each in rule.get("IpRanges") or ()),
        *(str(each.get("CidrIpv6")) for each in rule.get("Ipv6Ranges") or ()),
        *(str(each.get("GroupId")) for each in rule.get("UserIdGroupPairs") or ()),
        *(str(each.get("PrefixListId")) for each in rule.get("PrefixListIds") or ()),
    ]
    return f"TCP {HTTPS} to {', '.join(ends)}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


CHECKS = (
    Check("network.subnets", "whether the subnets are there, in one VPC", subnets, ("identity.credentials",)),
    Check(
        "network.endpoints",
        "a default route to NAT, or endpoints for Systems Manager, its channels and S3",
        endpoints,
        ("network.subnets",),
    ),
    Check(
        "network.private-dns",
        "private DNS of the endpoints, and the VPC's DNS settings",
        private_dns,
        ("network.endpoints",),
    ),
    Check(
        "network.job-groups",
        "whether the job's security groups let HTTPS out",
        job_groups,
        ("network.subnets",),
    ),
    Check(
        "network.endpoint-groups",
        "whether the security groups of the endpoints let HTTPS in from the job",
        endpoint_groups,
        ("network.private-dns",),
    ),
)
