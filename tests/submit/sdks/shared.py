"""The steps that users write in the same words for v2 and v3: only the modules have other names."""

from __future__ import annotations

from typing import Any, NamedTuple

from common import BUCKET, IMAGE, ROLE, Table, World

from smssh_plugin import with_ssh

ONE = {"instance_count": 1, "instance_type": "ml.m5.large"}


class SDK(NamedTuple):
    """What these cases need of an SDK."""

    condition_equals: Any
    condition_step: Any
    notebook_job_step: Any
    parameter_string: Any
    processing_step: Any
    processor: Any
    py_spark_processor: Any
    script_processor: Any
    session: Any
    step: Any
    transform_step: Any
    transformer: Any

    def plain(self, world: World) -> Any:
        """A session for jobs that are submitted at once."""
        return self.session(boto_session=world.boto_session, default_bucket=BUCKET)

    def scripted(self, world: World, session: Any = None, **more: Any) -> Any:
        """A processor that runs a script."""
        return self.script_processor(
            role=ROLE,
            image_uri=IMAGE,
            command=["python3"],
            sagemaker_session=session or world.session,
            **ONE,
            **more,
        )

    def bare(self, world: World, **more: Any) -> Any:
        """A step that runs whatever the image does."""
        made = self.processor(role=ROLE, image_uri=IMAGE, sagemaker_session=world.session, **ONE, **more)
        return self.processing_step(name="Prepare", step_args=made.run())

    def batch(self, world: World, model_name: Any, session: Any = None) -> Any:
        """A transformer."""
        return self.transformer(
            model_name=model_name,
            output_path=world.s3("scores"),
            sagemaker_session=session or world.session,
            **ONE,
        )

    def score(self, world: World, model_name: Any) -> Any:
        """A transform step."""
        made = self.batch(world, model_name)
        return self.transform_step(name="Score", step_args=made.transform(data=world.s3("score")))

    def functions(self) -> tuple[Any, Any]:
        """Two steps that are functions; the second takes what the first returns."""

        @self.function("First")
        def first() -> int:
            return 1

        @self.function("Second")
        def second(number: int) -> int:
            return number

        one = first()
        return one, second(one)

    def function(self, name: str) -> Any:
        """The SDK's `@step`."""
        return self.step(
            name=name, image_uri=IMAGE, role=ROLE, instance_type="ml.m5.large", dependencies=None
        )


def add_cases(table: Table, sdk: SDK, train: Any, model_step: Any) -> None:
    """Add these cases to a table.

    Args:
        table: the table.
        sdk: the SDK.
        train: makes a training step.
        model_step: makes a step that makes a model, with the name of it.
    """

    @table.steps("processing-script")
    def processing_script(world: World) -> Any:
        parameter = sdk.parameter_string("Path", default_value="/mine")
        made = sdk.scripted(world, env={"WHERE": parameter})
        arguments = made.run(code=str(world.code / "prepare.py"))
        return [sdk.processing_step(name="Prepare", step_args=arguments), parameter]

    @table.steps("processing-pyspark")
    def processing_pyspark(world: World) -> Any:
        made = sdk.py_spark_processor(
            framework_version="3.3", role=ROLE, sagemaker_session=world.session, **ONE
        )
        arguments = made.run(submit_app=str(world.code / "prepare.py"))
        return sdk.processing_step(name="Prepare", step_args=arguments)

    @table.steps("processing-bare")
    def processing_bare(world: World) -> Any:
        return sdk.bare(world)

    @table.steps("function")
    def function(world: World) -> Any:
        return list(sdk.functions())

    @table.pipeline("function-by-delayed-return")
    def delayed(world: World) -> Any:
        """The first step is in no list."""
        return sdk.functions()[1]

    @table.pipeline("left-alone-models")
    def left_alone(world: World) -> Any:
        """A model for production, and one that brings files by an unproven way only; the rest gets SSH."""
        release, model = model_step(world, "Release"), model_step(world, "Model")
        return [sdk.bare(world), release, model, sdk.score(world, model.properties.ModelName)]

    @table.error("function-wrong-order")
    def wrong_order(world: World) -> Any:
        @sdk.function("Function")
        @with_ssh
        def double(number: int) -> int:
            return 2 * number

        return double(2)

    @table.steps("notebook-job")
    def notebook(world: World) -> Any:
        return sdk.notebook_job_step(
            name="Notebook",
            input_notebook=world.notebook,
            image_uri=IMAGE,
            kernel_name="python3",
            role=ROLE,
            s3_root_uri=world.s3("notebooks"),
            notebook_job_name="job",
        )

    @table.steps("condition")
    def condition(world: World) -> Any:
        return sdk.condition_step(
            name="If",
            conditions=[sdk.condition_equals(left="a", right="a")],
            if_steps=[sdk.bare(world)],
            else_steps=[train(world)],
        )

    @table.job("job-processor")
    def job_processor(world: World) -> None:
        made = sdk.scripted(world, sdk.plain(world))
        made.run(code=str(world.code / "prepare.py"), wait=False, logs=False)
