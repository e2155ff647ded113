"""From a customer's record to numbers."""

CONTRACTS = ["month-to-month", "one-year", "two-year"]


def to_features(customer):
    return [
        float(customer["tenure"]),
        float(customer["monthly_charges"]),
        float(customer["total_charges"]),
        float(CONTRACTS.index(customer["contract"])),
    ]
