"""The tests. Assertions in their helpers show values as well."""

import pytest

pytest.register_assert_rewrite("tests.helpers")
