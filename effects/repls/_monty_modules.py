"""Modules of Python's library for the sandbox, in the Python that it has: see `_monty_shims`.

Each source binds an object ``_rlm_m_NAME`` and nothing else that could be a name of the code's.
"""

HEAPQ = """
def _rlm_make_heapq():
    def down(heap, start, at):
        item = heap[at]
        while at > start:
            parent = (at - 1) >> 1
            if not item < heap[parent]:
                break
            heap[at] = heap[parent]
            at = parent
        heap[at] = item
    def up(heap, at):
        size, start, item = len(heap), at, heap[at]
        child = 2 * at + 1
        while child < size:
            right = child + 1
            if right < size and not heap[child] < heap[right]:
                child = right
            heap[at] = heap[child]
            at = child
            child = 2 * at + 1
        heap[at] = item
        down(heap, start, at)
    def heappush(heap, item):
        heap.append(item)
        down(heap, 0, len(heap) - 1)
    def heappop(heap):
        if not heap:
            raise IndexError("index out of range")
        last = heap.pop()
        if not heap:
            return last
        first = heap[0]
        heap[0] = last
        up(heap, 0)
        return first
    def heapreplace(heap, item):
        first = heap[0]
        heap[0] = item
        up(heap, 0)
        return first
    def heappushpop(heap, item):
        if heap and heap[0] < item:
            return heapreplace(heap, item)
        return item
    def heapify(heap):
        for at in range(len(heap) // 2 - 1, -1, -1):
            up(heap, at)
    def nlargest(n, iterable, key=None):
        return _rlm_sorted(iterable, key=key, reverse=True)[:max(n, 0)]
    def nsmallest(n, iterable, key=None):
        return _rlm_sorted(iterable, key=key)[:max(n, 0)]
    return {
        "heappush": heappush, "heappop": heappop, "heapify": heapify, "heapreplace": heapreplace,
        "heappushpop": heappushpop, "nlargest": nlargest, "nsmallest": nsmallest,
    }
_rlm_m_heapq = _rlm_module(_rlm_make_heapq())
"""

OPERATOR = """
def _rlm_make_operator():
    def itemgetter(*keys):
        if len(keys) == 1:
            key = keys[0]
            return lambda x: x[key]
        return lambda x: tuple([x[key] for key in keys])
    def reached(x, path):
        for name in path.split("."):
            x = getattr(x, name)
        return x
    def attrgetter(*names):
        if len(names) == 1:
            name = names[0]
            return lambda x: reached(x, name)
        return lambda x: tuple([reached(x, name) for name in names])
    return {
        "itemgetter": itemgetter, "attrgetter": attrgetter,
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
        "truediv": lambda a, b: a / b, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b,
        "pow": lambda a, b: a ** b, "neg": lambda a: -a, "not_": lambda a: not a,
        "and_": lambda a, b: a & b, "or_": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
        "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
        "contains": lambda a, b: b in a, "getitem": lambda a, b: a[b],
    }
_rlm_m_operator = _rlm_module(_rlm_make_operator())
"""

IO = """
def _rlm_make_io():
    class StringIO:
        def __init__(self, initial_value="", newline="\\n"):
            if newline not in ("\\n", ""):
                raise NotImplementedError("StringIO: newline must be left out here")
            self._text = initial_value or ""
            self._at = 0
        def __enter__(self):
            return self
        def __exit__(self, *error):
            return False
        def __iter__(self):
            return self
        def __next__(self):
            line = self.readline()
            if not line:
                raise StopIteration
            return line
        def read(self, size=-1):
            end = len(self._text) if size is None or size < 0 else self._at + size
            part = self._text[self._at:end]
            self._at += len(part)
            return part
        def readline(self):
            end = self._text.find("\\n", self._at) + 1 or len(self._text)
            line = self._text[self._at:end]
            self._at += len(line)
            return line
        def readlines(self):
            return [line for line in self]
        def write(self, text):
            if not isinstance(text, str):
                raise TypeError(f"string argument expected, got '{type(text).__name__}'")
            gap = "\\0" * (self._at - len(self._text))
            self._text = self._text[:self._at] + gap + text + self._text[self._at + len(text):]
            self._at += len(text)
            return len(text)
        def writelines(self, lines):
            for line in lines:
                self.write(line)
        def getvalue(self):
            return self._text
        def seek(self, at, whence=0):
            if whence == 2:
                at = len(self._text)
            self._at = at
            return at
        def tell(self):
            return self._at
        def flush(self):
            pass
        def close(self):
            pass
    return {"StringIO": StringIO}
_rlm_m_io = _rlm_module(_rlm_make_io())
"""

STRING = """
_rlm_m_string = _rlm_module({
    "ascii_lowercase": "abcdefghijklmnopqrstuvwxyz",
    "ascii_uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "ascii_letters": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digits": "0123456789", "hexdigits": "0123456789abcdefABCDEF", "octdigits": "01234567",
    "punctuation": "!\\"#$%&'()*+,-./:;<=>?@[\\\\]^_`{|}~",
    "whitespace": " \\t\\n\\r\\x0b\\x0c",
    "printable": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        "!\\"#$%&'()*+,-./:;<=>?@[\\\\]^_`{|}~ \\t\\n\\r\\x0b\\x0c",
    "capwords": _rlm_lib_string_capwords,
})
"""

PPRINT = """
def _rlm_pprint(value, **options):
    print(_rlm_lib_pprint_pformat(value, **options))
_rlm_m_pprint = _rlm_module({"pprint": _rlm_pprint, "pformat": _rlm_lib_pprint_pformat})
"""
