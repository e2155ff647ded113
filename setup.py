"""Puts `smssh.pth` and `smssh.start` at the top of site-packages, where Python looks for them.

All else is in pyproject.toml: setuptools has no table for files outside of packages that lands there.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LAUNCHERS = ("smssh.pth", "smssh.start")


class BuildWithLaunchers(build_py):
    """build_py, and the launchers of baked images.

    Not in an editable install: a development checkout has no business in every start of its interpreter.
    """

    def run(self) -> None:
        """Build the packages, then copy the launchers beside them."""
        super().run()
        if not self.editable_mode:
            for name in LAUNCHERS:
                self.copy_file(
                    str(Path("smssh_plugin", "entrypoints", name)), str(Path(self.build_lib, name))
                )

    def get_outputs(self, include_bytecode: bool = True) -> list:
        """What is built, the launchers included."""
        launchers = [] if self.editable_mode else [str(Path(self.build_lib, name)) for name in LAUNCHERS]
        return [*super().get_outputs(include_bytecode), *launchers]


setup(cmdclass={"build_py": BuildWithLaunchers})
