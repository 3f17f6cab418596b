"""Typed reasons why an engine gave no result. What happens next is decided in daemon/failures.py."""

from __future__ import annotations


class EngineError(Exception):
    """Base of the engines' errors.

    code : short stable identifier, shown in tables and counted
    hint : what the operator can do about it
    """

    code = "engine-error"
    hint = "See the log of the job."

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.hint = hint or self.hint


class CannotProcess(EngineError):
    """The method is undefined on this input (no liver VOI, wrong quantity); repeating it will not help."""

    code = "cannot-process"


class BadParameters(EngineError):
    """The rule's parameters are not ones this engine takes."""

    code = "bad-parameters"
    hint = "Correct `parameters:` of the rule; `tracerd check` lists every fault."


class NoGpu(EngineError):
    """A GPU was asked for where there is none."""

    code = "no-gpu"
    hint = "`--device cpu` computes on the processor; `nvidia-smi` shows whether the driver finds the GPU."


class UnknownEngine(EngineError):
    """No engine of that name."""

    code = "unknown-engine"
    hint = "`tracerd check` lists the engines of this version."


class NoEngine(EngineError):
    """An engine that is announced but not in this version."""

    code = "no-engine"
    hint = "`tracerd jobs rerun` computes it once the node runs a version that has the engine."


class CaseRefused(EngineError):
    """A study with its truth that cannot be learned from or judged by: damaged, not paired, of other units."""

    code = "case"
    hint = "Correct the files of this case, or take it out of the folder."


class WeightsRefused(EngineError):
    """Weights that cannot be used: missing, altered, without a card, or not of this engine."""

    code = "weights"
    hint = "`tracerd models list` shows what the node has; bring the file and its card back from where they came."


class Stopped(EngineError):
    """`should_stop` answered yes: the work was given up, nothing is wrong with it."""

    code = "stopped"
