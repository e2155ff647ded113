from tests.entrypoints.conftest import bundle, container, key
from tests.session.conftest import stack

__all__ = ["bundle", "container", "key", "stack"]
