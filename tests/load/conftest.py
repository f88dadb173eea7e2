from __future__ import annotations

import pytest

pytest.register_assert_rewrite("support.load_engine_contract")
