"""Puts `smssh.pth` and `smssh.start` at the top of site-packages, where Python looks for them.

All else is in pyproject.toml: setuptools has no table for files outside of packages that lands there.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIERS = ("smssh.pth", "smssh.start")


class BuildWithCarriers(build_py):
    """build_py, and the carriers of baked images.

    Not in an editable install: a development checkout has no business in every start of its interpreter.
    """

    def run(self) -> None:
        """Build the packages, then copy the carriers beside them."""
        super().run()
        if not self.editable_mode:
            for name in CARRIERS:
                self.copy_file(
                    str(Path("smssh_plugin", "entrypoints", name)), str(Path(self.build_lib, name))
                )

    def get_outputs(self, include_bytecode: bool = True) -> list:
        """What is built, the carriers included."""
        carriers = [] if self.editable_mode else [str(Path(self.build_lib, name)) for name in CARRIERS]
        return [*super().get_outputs(include_bytecode), *carriers]


setup(cmdclass={"build_py": BuildWithCarriers})
