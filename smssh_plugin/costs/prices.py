"""What instances and managed nodes cost an hour, as AWS's price list says; asked for at most once a day.

No price comes with the package: where the list may not be read, or says two prices, no price is known.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..aws.json_client import COMMERCIAL, denied
from ..aws.session import AwsSession, ServiceRefused
from ..errors import SmsshError
from ..files import write_atomically
from ..home import forget_old, home, own_text, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FRESH_SECONDS", "Price", "Prices", "remembers_any"]

FOLDER = "prices"
FRESH_SECONDS = 86400.0
"""For how long a price that was read is used."""
ACTION = "pricing:GetProducts"
COMPONENTS = {
    "training": "training",
    "processing": "processing",
    "transform": "batchtransform",
    "inference": "hosting",
}
"""The attribute `component` of AmazonSageMaker's products, in small letters and without blanks, by kind of job."""
_HOUR = re.compile(r"\bh(ou)?rs?\b", re.IGNORECASE)
NODE_USAGE = "MI-AdvInstances-Hrs"
"""How the usage type of the advanced-instances tier ends, in the products of AWSSystemsManager."""


@dataclass(frozen=True)
class Price:
    """A price of one hour."""

    amount: float
    currency: str


class Prices:
    """The prices of one region; for any number of threads.

    Args:
        aws: the AWS session, in the region of the jobs.
        ask: whether AWS is asked for what is not remembered.
    """

    def __init__(self, aws: AwsSession, *, ask: bool = True) -> None:
        self._aws = aws
        self._ask = ask
        self.trouble: SmsshError | None = None
        """Why prices could not be read; after that, none is asked for."""
        self.unknown: set[str] = set()
        """What the price list has no price for, or several."""

    def instance(self, kind: str, instance_type: str) -> Price | None:
        """An instance's price in jobs of a kind; None where it is not known.

        Args:
            kind: training, processing, transform or inference.
            instance_type: for instance `ml.m5.xlarge`.
        """
        component = COMPONENTS.get(kind)
        if component is None or not instance_type:
            return None

        def fits(attributes: dict[str, Any]) -> bool:
            said = re.sub("[^a-z]", "", str(attributes.get("component", "")).lower())
            return said == component and attributes.get("instanceName") == instance_type

        price = self._price("AmazonSageMaker", {"instanceName": instance_type}, component, fits)
        return self._noted(price, f"{instance_type} ({kind})")

    def node(self) -> Price | None:
        """The price of a managed node in the advanced-instances tier; None where it is not known."""
        price = self._price(
            "AWSSystemsManager", {}, "node", lambda each: str(each.get("usagetype", "")).endswith(NODE_USAGE)
        )
        return self._noted(price, "managed nodes")

    def _noted(self, price: Price | None, what: str) -> Price | None:
        if price is None:
            self.unknown.add(what)
        return price

    def _price(
        self, service: str, filters: dict[str, str], what: str, fits: Callable[[dict[str, Any]], bool]
    ) -> Price | None:
        parts = (self._aws.region, self._aws.profile.name, service, what, *sorted(filters.values()))
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        known, price = _recall(name)
        if known or not self._ask or self.trouble is not None:
            return price
        try:
            found = {
                _of(product) for product in self._products(service, filters) if fits(_attributes(product))
            }
        except SmsshError as error:
            self.trouble = _trouble(error)
            return None
        # A list with several prices does not say which one is meant.
        found.discard(None)
        price = found.pop() if len(found) == 1 else None
        _remember(name, price)
        return price

    def _products(self, service: str, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
        """The products of a service in the region, as the price list describes them.

        Raises:
            SmsshError: it cannot be read.
        """
        place = _place(self._aws.region)
        profile = self._aws.profile
        aws = AwsSession(place, profile.name if profile.explicit else None)
        wanted = {"regionCode": self._aws.region, **filters}
        arguments: dict[str, Any] = {
            "ServiceCode": service,
            "Filters": [
                {"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()
            ],
            "FormatVersion": "aws_v1",
            "MaxResults": 100,
        }
        while True:
            try:
                answer = aws.call_once("pricing", "get_products", **arguments)
            except ServiceRefused as error:
                if not error.passing:
                    raise
                answer = aws.call("pricing", "get_products", **arguments)
            for each in answer.get("PriceList") or ():
                try:  # each is a text with JSON in it
                    product = json.loads(each) if isinstance(each, str) else each
                except ValueError:
                    continue
                if isinstance(product, dict):
                    yield product
            arguments["NextToken"] = answer.get("NextToken")
            if not arguments["NextToken"]:
                return


def remembers_any() -> bool:
    """Whether this machine remembers a price of the last day."""
    try:
        return any((home() / FOLDER).iterdir())
    except (OSError, SmsshError):
        return False


def _place(region: str) -> str:
    """The region of the price list that is nearest; it has the prices of all regions of its partition.

    Where there are price lists is as in botocore's endpoints.

    Raises:
        SmsshError: the region's partition has none that is known.
    """
    if region.startswith("cn-"):
        return "cn-northwest-1"
    if region.startswith("eusc-"):
        return "eusc-de-east-1"
    if not COMMERCIAL.fullmatch(region):
        raise SmsshError(f"no price list is known for {region}", reference="no-price-list")
    if region.startswith(("eu-", "il-", "me-", "af-")):
        return "eu-central-1"
    return "ap-south-1" if region.startswith("ap-") else "us-east-1"


def _attributes(product: dict[str, Any]) -> dict[str, Any]:
    described = product.get("product")
    found = described.get("attributes") if isinstance(described, dict) else None
    return found if isinstance(found, dict) else {}


def _of(product: dict[str, Any]) -> Price | None:
    """The price of an hour on demand; None where the product has none, or several."""
    try:
        dimensions = [
            dimension
            for term in (product["terms"].get("OnDemand") or {}).values()
            for dimension in term["priceDimensions"].values()
        ]
        prices = {
            Price(float(amount), str(currency))
            for each in dimensions
            if _HOUR.search(str(each.get("unit", "")))
            for currency, amount in each["pricePerUnit"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    usable = {each for each in prices if math.isfinite(each.amount) and each.amount > 0}
    return usable.pop() if len(usable) == 1 else None


def _trouble(error: SmsshError) -> SmsshError:
    """What to say where prices cannot be read: the action that is missing, or the reason."""
    if error.reference == "access-denied":
        action = (denied(error.message) or (ACTION, ""))[0]
        return SmsshError(
            f"prices are not known: {action} is not allowed",
            hint=f'allow it: {{"Effect": "Allow", "Action": "{action}", "Resource": "*"}}',
            reference=error.reference,
        )
    return SmsshError(f"prices are not known: {error.message}", hint=error.hint, reference=error.reference)


def _recall(name: str) -> tuple[bool, Price | None]:
    """Whether the list was read for this lately, and the price that was in it."""
    try:
        path = _path(name)
        if not 0 <= time.time() - path.stat().st_mtime <= FRESH_SECONDS:
            return False, None
        found = json.loads(own_text(path))
        if found is None:
            return True, None
        price = Price(float(found["amount"]), str(found["currency"]))
    except (OSError, ValueError, KeyError, TypeError, SmsshError):
        return False, None
    return math.isfinite(price.amount), price


def _remember(name: str, price: Price | None) -> None:
    """Keep a price for a day. That it cannot be kept is not a reason to fail."""
    said = None if price is None else {"amount": price.amount, "currency": price.currency}
    try:
        private_folder(home())
        folder = private_folder(home() / FOLDER)
        write_atomically(_path(name), json.dumps(said))
        forget_old(folder, FRESH_SECONDS)
    except (OSError, SmsshError):
        return


def _path(name: str) -> Path:
    return home() / FOLDER / name
