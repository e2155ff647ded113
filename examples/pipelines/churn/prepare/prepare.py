"""Split the customers into those whose outcome is known (train) and those to score."""

import csv
from pathlib import Path

BASE = Path("/opt/ml/processing")


def write(name, rows, fields, header):
    target = BASE / "output" / name / f"{name}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(rows)
    print(f"{name}: {len(rows)} customers")


with (BASE / "input" / "customers" / "customers.csv").open(newline="") as file:
    customers = list(csv.DictReader(file))

features = ["tenure", "monthly_charges", "total_charges", "contract"]
write("train", [row for row in customers if row["churn"]], [*features, "churn"], header=True)
write("score", [row for row in customers if not row["churn"]], features, header=False)
