"""A runtime for Recursive Language Models: a pure state machine over an event log.

    from rlm_fsm import run

    result = run("Which launch had the largest revenue?", text, model="openai:gpt-5")
    print(result.output)

The names of the core are imported with the package. Those of the shell (`run`, `RLM`, `Context`,
adapters ...) are imported when they are first used, so that a program that only folds logs loads
no network client and no database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlm_fsm._version import __version__
from rlm_fsm.errors import (
    IllegalEvent,
    LogConflict,
    LogCorrupt,
    LogError,
    LogForeign,
    LogNewer,
    MaxCostExceeded,
    MaxRecursionExceeded,
    MaxSecondsExceeded,
    MaxStepsExceeded,
    MaxSubcallsExceeded,
    MaxTokensExceeded,
    ModelAuthError,
    ModelError,
    ModelTimeoutError,
    PolicyError,
    ReplayDiverged,
    ReplError,
    RLMError,
    RunBusy,
    RunError,
    RunNotFound,
    UsageError,
)
from rlm_fsm.fold import fold, pending, state_at
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price, PriceTier
from rlm_fsm.profile import Profile
from rlm_fsm.profiles import DSPY, PAPER, PROFILES, PYRLM, RLMS
from rlm_fsm.reducer import TRANSITIONS, step
from rlm_fsm.state import Frame, Phase, RunState
from rlm_fsm.trace import Trace, TraceStep
from rlm_fsm.values import ModelResponse, Usage

if TYPE_CHECKING:
    from effects.adapters.base import AdapterError, ModelAdapter
    from effects.adapters.fake import FakeAdapter, FakeRule
    from effects.adapters.openai_compat import OpenAICompatAdapter
    from effects.api import RLM, arun, fork, replay, resume, run, runs
    from effects.approvals import approvals, approve
    from effects.caches.base import Cache, CachedReply, CacheRequest
    from effects.caches.files import FileCache
    from effects.context import Context
    from effects.listeners import Appended
    from effects.log.base import EventLog, RunInfo
    from effects.log.sqlite import SqliteLog
    from effects.many.budget import Budget
    from effects.many.job import Job
    from effects.many.rows import JobResult, ManyResult
    from effects.many.run import arun_many, run_many, stream_many
    from effects.repls.base import ReplLimits, SnapshotRule
    from effects.result import RunResult, RunUsage
    from effects.tools import ApprovalRequest, Tool, tool

_SHELL = {
    "RLM": "effects.api",
    "arun": "effects.api",
    "fork": "effects.api",
    "replay": "effects.api",
    "resume": "effects.api",
    "run": "effects.api",
    "runs": "effects.api",
    "approvals": "effects.approvals",
    "approve": "effects.approvals",
    "ApprovalRequest": "effects.tools",
    "Tool": "effects.tools",
    "tool": "effects.tools",
    "Cache": "effects.caches.base",
    "CachedReply": "effects.caches.base",
    "CacheRequest": "effects.caches.base",
    "FileCache": "effects.caches.files",
    "Context": "effects.context",
    "RunResult": "effects.result",
    "RunUsage": "effects.result",
    "ReplLimits": "effects.repls.base",
    "SnapshotRule": "effects.repls.base",
    "Appended": "effects.listeners",
    "EventLog": "effects.log.base",
    "RunInfo": "effects.log.base",
    "SqliteLog": "effects.log.sqlite",
    "Budget": "effects.many.budget",
    "Job": "effects.many.job",
    "JobResult": "effects.many.rows",
    "ManyResult": "effects.many.rows",
    "arun_many": "effects.many.run",
    "run_many": "effects.many.run",
    "stream_many": "effects.many.run",
    "ModelAdapter": "effects.adapters.base",
    "AdapterError": "effects.adapters.base",
    "FakeAdapter": "effects.adapters.fake",
    "FakeRule": "effects.adapters.fake",
    "OpenAICompatAdapter": "effects.adapters.openai_compat",
}

__all__ = [
    "DSPY",
    "PAPER",
    "PROFILES",
    "PYRLM",
    "RLM",
    "RLMS",
    "TRANSITIONS",
    "AdapterError",
    "Appended",
    "ApprovalRequest",
    "Budget",
    "Cache",
    "CacheRequest",
    "CachedReply",
    "Context",
    "EventLog",
    "FakeAdapter",
    "FakeRule",
    "FileCache",
    "Frame",
    "IllegalEvent",
    "Job",
    "JobResult",
    "LogConflict",
    "LogCorrupt",
    "LogError",
    "LogForeign",
    "LogNewer",
    "ManyResult",
    "MaxCostExceeded",
    "MaxRecursionExceeded",
    "MaxSecondsExceeded",
    "MaxStepsExceeded",
    "MaxSubcallsExceeded",
    "MaxTokensExceeded",
    "ModelAdapter",
    "ModelAuthError",
    "ModelError",
    "ModelResponse",
    "ModelTimeoutError",
    "OpenAICompatAdapter",
    "Options",
    "Phase",
    "Policy",
    "PolicyError",
    "Price",
    "PriceTier",
    "Profile",
    "RLMError",
    "ReplError",
    "ReplLimits",
    "ReplayDiverged",
    "RunBusy",
    "RunError",
    "RunInfo",
    "RunNotFound",
    "RunResult",
    "RunState",
    "RunUsage",
    "SnapshotRule",
    "SqliteLog",
    "Tool",
    "Trace",
    "TraceStep",
    "Usage",
    "UsageError",
    "__version__",
    "approvals",
    "approve",
    "arun",
    "arun_many",
    "fold",
    "fork",
    "pending",
    "replay",
    "resume",
    "run",
    "run_many",
    "runs",
    "state_at",
    "step",
    "stream_many",
    "tool",
]


def __getattr__(name: str) -> Any:
    """A name of the shell, imported when it is first used (PEP 562)."""
    module = _SHELL.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
