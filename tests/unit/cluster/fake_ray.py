"""A Ray of the test's own: calls are answered, or fail, when the test says so."""


class Call:
    """What ``handle.method.remote(…)`` returns."""

    def __init__(self, *arguments, **named):
        self.arguments = named or arguments
        self.answer = None


class Method:
    def __init__(self):
        self.calls = []

    def options(self, **_):
        return self

    def remote(self, *arguments, **named):
        self.calls.append(Call(*arguments, **named))
        return self.calls[-1]


class Handle:
    """An actor with the methods that are asked of it."""

    def __init__(self, name=None):
        self.name = name
        self.is_killed = False
        self.is_placed = True
        """Whether there is a machine for it."""
        self.looks = 0
        """How often Ray was asked for that."""
        self._methods = {}

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._methods.setdefault(name, Method())

    @property
    def calls(self):
        return [call for method in self._methods.values() for call in method.calls]

    @property
    def under_way(self):
        return sum(call.answer is None for call in self.calls)

    def answer(self, answer):
        """The oldest unanswered call returns this, or raises it."""
        next(call for call in self.calls if call.answer is None).answer = answer

    def fail(self, error):
        """Every unanswered call fails, as when a process dies."""
        for call in self.calls:
            if call.answer is None:
                call.answer = error


def has_process(handle):
    """Takes the place of cluster.ray_runtime.has_process."""
    handle.looks += 1
    return handle.is_placed


class FakeRay:
    """The functions of Ray that the cluster uses on calls and handles; ``on_wait`` runs where Ray would block."""

    def __init__(self, on_wait=None):
        self._on_wait = on_wait

    def wait(self, calls, *, num_returns=1, timeout):
        assert timeout == 0
        assert num_returns == len(calls)
        return [call for call in calls if call.answer is not None], [call for call in calls if call.answer is None]

    def get(self, call, timeout=None):
        if call.answer is None and self._on_wait is not None:
            self._on_wait(call)
        if call.answer is None:
            raise TimeoutError
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer

    def kill(self, handle):
        handle.is_killed = True
