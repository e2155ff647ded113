"""AWS's price list over HTTP, in the format of its query API (FormatVersion aws_v1). Its prices are made up."""

from __future__ import annotations

import json
from typing import Any

from tests.aws.peers import Api

PAGE = 2
"""Products of a page: few, so that every answer has several."""


def product(
    service: str, attributes: dict[str, str], *prices: str, unit: str = "Hrs", currency: str = "USD"
) -> str:
    """A product as GetProducts answers it: a text with JSON in it.

    Args:
        service: its service code.
        attributes: its attributes.
        prices: one for each rate of its terms on demand.
        unit: what they are for.
        currency: of the prices.
    """
    sku = f"SKU{abs(hash((service, tuple(attributes.items()), prices))):015d}"
    term = f"{sku}.JRTCKXETXF"
    rates = {
        f"{term}.{number}": {
            "unit": unit,
            "endRange": "Inf",
            "description": f"${price} per hour",
            "appliesTo": [],
            "rateCode": f"{term}.{number}",
            "beginRange": "0",
            "pricePerUnit": {currency: price},
        }
        for number, price in enumerate(prices)
    }
    described = {
        "product": {
            "productFamily": "ML Instance" if service == "AmazonSageMaker" else "AWS Systems Manager",
            "attributes": {"servicecode": service, "locationType": "AWS Region", **attributes},
            "sku": sku,
        },
        "serviceCode": service,
        "terms": {
            "OnDemand": {
                term: {
                    "priceDimensions": rates,
                    "sku": sku,
                    "effectiveDate": "2026-11-01T00:00:00Z",
                    "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                }
            }
        },
        "version": "20261101000000",
        "publicationDate": "2026-11-01T00:00:00Z",
    }
    return json.dumps(described)


class PriceList:
    """Answers GetProducts: the products of a service that have all attributes asked for."""

    def __init__(self) -> None:
        self._api = Api()
        self._api.answers += [self._answer] * 999
        self.products: list[str] = []
        self.refusal: tuple[int, dict[str, str]] | None = None
        """Status and body, in place of an answer."""

    @property
    def url(self) -> str:
        return self._api.url

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests."""
        return [body for _, body in self._api.asked]

    @property
    def regions(self) -> set[str]:
        """The regions that requests were signed for."""
        return {headers["Authorization"].split("/")[2] for headers in self._api.headers}

    def instance(
        self, name: str, *prices: str, component: str = "Training", region: str = "us-east-1", **more: Any
    ) -> None:
        usage = f"USE1-{component.replace(' ', '')}:{name}"
        attributes = {
            "instanceName": name,
            "instanceType": f"{name}-{component}",
            "component": component,
            "regionCode": region,
            "usagetype": usage,
            "operation": "RunInstance",
            "servicename": "Amazon SageMaker",
        }
        self.products.append(product("AmazonSageMaker", attributes, *prices, **more))

    def node(self, *prices: str, region: str = "us-east-1", prefix: str = "USE1-", **more: Any) -> None:
        for usage in (f"{prefix}MI-AdvInstances-Hrs", f"{prefix}PS-Advanced-Param-Tier1"):
            attributes = {"regionCode": region, "usagetype": usage, "servicename": "AWS Systems Manager"}
            given = prices if "MI-" in usage else ("0.05",)
            self.products.append(product("AWSSystemsManager", attributes, *given, **more))

    def close(self) -> None:
        self._api.close()

    def _answer(self, handler: Any) -> None:
        target, body = self._api.asked[-1]
        assert target == "AWSPriceListService.GetProducts", target
        status, answer = self.refusal or (200, self._page(body))
        data = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-amz-json-1.1")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _page(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = {each["Field"]: each["Value"] for each in body["Filters"]}
        assert all(each["Type"] == "TERM_MATCH" for each in body["Filters"])
        found = []
        for text in self.products:
            read = json.loads(text)
            attributes = read["product"]["attributes"]
            if read["serviceCode"] == body["ServiceCode"] and wanted.items() <= attributes.items():
                found.append(text)
        start = int(body.get("NextToken") or 0)
        answer = {"FormatVersion": "aws_v1", "PriceList": found[start : start + PAGE]}
        if start + PAGE < len(found):
            answer["NextToken"] = str(start + PAGE)
        return answer
