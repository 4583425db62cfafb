import pytest

pytest.register_assert_rewrite("tests.cluster.engine_contract")
