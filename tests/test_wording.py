from __future__ import annotations

import pytest

from ccrl_wsi.wording import counted


@pytest.mark.parametrize(("n", "said"), [(0, "0 slides"), (1, "1 slide"), (21, "21 slides")])
def test_one_thing_is_not_told_as_several(n, said):
    assert counted(n, "slide") == said
