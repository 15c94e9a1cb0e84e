"""The CUDA driver's functions by their own names, with errors raised; and its constants."""


class DriverError(RuntimeError):
    """A function of the driver has refused; the same of an earlier launch may be the reason."""


class Driver:
    """binding: cuda.bindings.driver, whose functions return (code, value, ...)."""

    def __init__(self, binding):
        self._binding = binding

    def __getattr__(self, name):
        found = getattr(self._binding, name)
        if not name.startswith("cu"):
            return found  # a type, with its constants: CUresult
        success = self._binding.CUresult.CUDA_SUCCESS

        def call(*arguments):
            code, *values = found(*arguments)
            if code != success:
                raise DriverError(f"{name}: {code.name}")
            return values[0] if len(values) == 1 else tuple(values)

        setattr(self, name, call)
        return call
