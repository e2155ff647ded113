"""Group the customers by how long they stay and what they pay."""

import csv
import json
import os
from pathlib import Path

from sklearn.cluster import KMeans

clusters = json.loads(os.environ["SM_HPS"])["clusters"]
with Path(os.environ["SM_CHANNEL_TRAIN"], "train.csv").open(newline="") as file:
    points = [[float(row["tenure"]), float(row["monthly_charges"])] for row in csv.DictReader(file)]

model = KMeans(n_clusters=clusters, n_init=4, random_state=0).fit(points)
for number, (tenure, charges) in enumerate(model.cluster_centers_):
    print(f"segment {number}: {tenure:.0f} months, {charges:.2f} a month")
Path(os.environ["SM_MODEL_DIR"], "segments.json").write_text(json.dumps(model.cluster_centers_.tolist()))
