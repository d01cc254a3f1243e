"""Records torch operations on remote tensors as a functional program."""

from gridclient.recorder.channel import Channel
from gridclient.recorder.pointer import Pointer
from gridclient.recorder.recorder import Recorder
from gridclient.recorder.tape import Value

__all__ = ["Channel", "Pointer", "Recorder", "Value"]
