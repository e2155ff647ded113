from tests.entrypoints.conftest import bundle, container, key, server
from tests.session.conftest import stack

__all__ = ["bundle", "container", "key", "server", "stack"]
