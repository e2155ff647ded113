"""Fit the churn model."""

import argparse
import csv
import os
import shutil
from pathlib import Path

import joblib
from features import to_features
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--regularisation", type=float, default=1.0)
    args = parser.parse_args()

    with Path(os.environ["SM_CHANNEL_TRAIN"], "train.csv").open(newline="") as file:
        customers = list(csv.DictReader(file))
    print(f"read {len(customers)} customers")

    x = [to_features(customer) for customer in customers]
    y = [customer["churn"] == "yes" for customer in customers]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / args.regularisation)).fit(x, y)
    print(f"accuracy {model.score(x, y):.3f}")

    target = Path(os.environ["SM_MODEL_DIR"])
    joblib.dump(model, target / "model.joblib")
    (target / "code").mkdir(exist_ok=True)
    for name in ("features.py", "inference.py"):
        shutil.copy(name, target / "code" / name)


if __name__ == "__main__":
    main()
