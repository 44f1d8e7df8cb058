"""Tools on the host: functions of the caller's program that model-written code may call.

`declared` says what a tool is, `named` how many become a run's, `toolbox` calls them, and
`approvals` has what waits for a person. What the machine does with calls is in
`rlm_fsm.tool_calls`, what code sees of tools in `effects.repls._tools`.
"""

from effects.tools.declared import Tool, tool
from effects.tools.toolbox import ApprovalRequest, OnApproval, Toolbox

__all__ = ["ApprovalRequest", "OnApproval", "Tool", "Toolbox", "tool"]
