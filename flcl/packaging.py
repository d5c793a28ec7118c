"""The build of a wheel: the configs go with the library, as the folder `flcl/configs`.

Only setuptools reads this module, while it builds; `pyproject.toml` names it.
"""

from setuptools.command.build_py import build_py

NAME = "flcl.configs"


class BuildWithConfigs(build_py):
    """Builds the rooms of flcl, and `configs/` of the checkout as one more."""

    def finalize_options(self) -> None:
        """Adds the configs to what is built; an editable installation reads the checkout."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [*self.packages, NAME]
            self.package_dir = {**(self.package_dir or {}), NAME: "configs"}
            self.package_data = {**self.package_data, NAME: ["README.md"]}
