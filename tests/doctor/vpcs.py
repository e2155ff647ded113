"""VPCs of the local emulator's account, which are moto's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.local.service_harness import Service

__all__ = ["Vpc", "private"]


class Vpc:
    """A VPC with one subnet, which has no way out, and security groups for jobs and endpoints."""

    def __init__(self, service: Service) -> None:
        self.ec2 = service.client("ec2")
        self.id = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.ec2.modify_vpc_attribute(VpcId=self.id, EnableDnsHostnames={"Value": True})
        self.subnet = self.ec2.create_subnet(VpcId=self.id, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        self.job_group = self.group("job")
        self.endpoint_group = self.group("endpoint")
        of_vpc = [{"Name": "vpc-id", "Values": [self.id]}]
        self.table = self.ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"]

    def group(self, name: str) -> str:
        made = self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.id)
        return str(made["GroupId"])

    def route(self, block: str = "0.0.0.0/0", **target: str) -> None:
        self.ec2.create_route(RouteTableId=self.table, DestinationCidrBlock=block, **target)

    def nat(self, *blocks: str) -> None:
        address = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        made = self.ec2.create_nat_gateway(SubnetId=self.subnet, AllocationId=address)
        for block in blocks or ("0.0.0.0/0",):
            self.route(block, NatGatewayId=made["NatGateway"]["NatGatewayId"])

    def internet(self) -> None:
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.id)
        self.route(GatewayId=gateway)

    def interface(self, service: str, private_dns: bool = True) -> str:
        made = self.ec2.create_vpc_endpoint(
            VpcId=self.id,
            ServiceName=f"com.amazonaws.us-east-1.{service}",
            VpcEndpointType="Interface",
            SubnetIds=[self.subnet],
            SecurityGroupIds=[self.endpoint_group],
            PrivateDnsEnabled=private_dns,
        )
        return str(made["VpcEndpoint"]["VpcEndpointId"])

    def gateway(self, *tables: str) -> None:
        self.ec2.create_vpc_endpoint(
            VpcId=self.id,
            ServiceName="com.amazonaws.us-east-1.s3",
            VpcEndpointType="Gateway",
            RouteTableIds=list(tables or (self.table,)),
        )

    def open(self, group: str, *, group_of: str = "", cidr: str = "", port: int = 443) -> None:
        """Let TCP into a group, from another one or from addresses."""
        rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
        if group_of:
            rule["UserIdGroupPairs"] = [{"GroupId": group_of}]
        if cidr:
            rule["IpRanges"] = [{"CidrIp": cidr}]
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])

    def out(self, group: str, **ends: list[dict[str, str]]) -> None:
        """Let HTTPS out of a group to these ends, and nothing else."""
        self.close(group)
        rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **ends}
        self.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[rule])

    def close(self, group: str) -> None:
        """Let nothing out of a group any more."""
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        self.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])


def private(service: Service, *without: str, source: str = "", private_dns: bool = True) -> Vpc:
    """A VPC without a way out that has the endpoints of a host, except for some services."""
    vpc = Vpc(service)
    for each in ("ssm", "ssmmessages"):
        if each not in without:
            vpc.interface(each, private_dns)
    if "s3" not in without:
        vpc.gateway()
    if source:
        vpc.open(vpc.endpoint_group, cidr=source)
    else:
        vpc.open(vpc.endpoint_group, group_of=vpc.job_group)
    return vpc
