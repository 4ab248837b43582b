"""What changes with time: functions of the step, so that a resumed training is the same one."""

from __future__ import annotations

import math

from ccrl_wsi.training.learner import Moment
from ccrl_wsi.training.settings import CcrlScheduleSettings, ScheduleSettings


def learning_rate(moment: Moment, schedule: ScheduleSettings) -> float:
    """Linear from 0 in ``warmup_epochs``, then a cosine to 0 (paper, section 3: warm-up, cosine).

    The cosine is over the steps after the warm-up, so that it ends at 0 when the training ends.
    VOLTA divides by all epochs instead and ends slightly above. The first step of a warm-up has
    rate 0: it only gives the running means a start.
    """
    warmup = schedule.warmup_epochs * moment.steps_per_epoch
    if moment.step < warmup:
        return schedule.learning_rate * moment.step / warmup
    share = (moment.step - warmup) / max(moment.n_steps - warmup, 1)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def key_momentum(moment: Moment, schedule: CcrlScheduleSettings) -> float:
    """From ``momentum`` to ``last_momentum`` on half a cosine (Grill et al. 2020, BYOL).

    The paper's is constant: both are 0.999.
    """
    share = min(moment.step / moment.n_steps, 1.0)
    left = 0.5 * (1 + math.cos(math.pi * share))
    return schedule.last_momentum + (schedule.momentum - schedule.last_momentum) * left
