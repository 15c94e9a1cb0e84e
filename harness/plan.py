"""`harness plan [key=value ...]`: what a training run would do, call by call."""

import argparse

from harness.config import command_line
from harness.config.config import model_of, trainer_settings
from harness.plugins import all_ops
from harness.run.data import load_data
from harness.run.starting_model import starting_model
from harness.training import plan_table
from harness.training.training_plan import TrainingPlan


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `harness plan`."""
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--totals", action="store_true", help="leave out the calls")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """`harness plan`. Returns the exit code."""
    (config,) = command_line.check(arguments.overrides)
    with starting_model(config) as (config, _):
        model = model_of(config, load_data(config).vocab_size)
    training = TrainingPlan(trainer_settings(config, model), all_ops())
    for line in (plan_table.totals if arguments.totals else plan_table.lines)(training):
        print(line)
    return 0
