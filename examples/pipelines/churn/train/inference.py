"""Serve the churn model: rows of CSV in, a probability a row out."""

import csv
import io
import os

import joblib
from features import to_features

FIELDS = ["tenure", "monthly_charges", "total_charges", "contract"]


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(data, content_type):
    text = data.decode() if isinstance(data, bytes) else data
    return [to_features(row) for row in csv.DictReader(io.StringIO(text), FIELDS)]


def predict_fn(features, model):
    return model.predict_proba(features)[:, 1]


def output_fn(probabilities, accept):
    return "\n".join(f"{probability:.4f}" for probability in probabilities)
