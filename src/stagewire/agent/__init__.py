"""The deployment agent: keeps a target running what a stage of the registry says."""

from stagewire.agent.agent import Agent
from stagewire.agent.deployer import OnWithdraw
from stagewire.agent.executors import ExecHook, ExecutionFailed, HttpHook
from stagewire.agent.orders import Executor, Interrupted, Order, Rejected
from stagewire.agent.state import StateInUse

__all__ = [
    "Agent",
    "ExecHook",
    "ExecutionFailed",
    "Executor",
    "HttpHook",
    "Interrupted",
    "OnWithdraw",
    "Order",
    "Rejected",
    "StateInUse",
]
