"""The code of a model that SageMaker's inference toolkit serves: it multiplies by the number in the model's file."""

HANDLERS = """
import json, pathlib
def model_fn(model_dir, context=None):
    return int(pathlib.Path(model_dir, "weights").read_text())
def input_fn(data, content_type, context=None):
    return json.loads(data)
def predict_fn(data, model, context=None):
    return data["x"] * model
def output_fn(prediction, accept, context=None):
    return json.dumps({"y": prediction})
"""
