"""The errors users of moa see. Each message is one line: expected and given."""


class MoaError(Exception):
    """Base class of every error that moa raises on purpose."""


class ShapeError(MoaError, ValueError):
    """Ranks or extents that do not fit, statically or at the call."""


class IndexRangeError(MoaError, IndexError):
    """An index that is not within the extent it indexes."""


class DTypeError(MoaError, TypeError):
    """An element type that an operation or a kernel does not take."""


class OptionError(MoaError, ValueError):
    """An option of a program that is not one of the values it may have."""


class LayoutError(MoaError, ValueError):
    """An array whose strides or device a kernel does not take."""


class DeviceError(MoaError, RuntimeError):
    """A device or its driver that is missing or reports an error."""


_OF_AN_INDEX = (
    "psi: index entry",
    "gamma: index entry",
    "gamma_inverse: the address",
)


def precondition_error(text: str) -> MoaError:
    """The error for a precondition that does not hold, by its message."""
    if text.startswith(_OF_AN_INDEX):
        return IndexRangeError(text)
    return ShapeError(text)


class CompileError(MoaError):
    """A program that cannot be compiled, with the reason."""


class KernelError(MoaError):
    """A GPU kernel that goes wrong when it is run on the CPU."""


class PipelineError(MoaError, ValueError):
    """A pipeline that cannot be run on a module of another compiler.

    Attributes:
        message: what is wrong.
        location: where, as `file:line:column`; empty if that is not known.
    """

    def __init__(self, message: str, location: str = ""):
        super().__init__(f"{location}: {message}" if location else message)
        self.message = message
        self.location = location
