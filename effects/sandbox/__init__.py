"""What keeps model-written code in: one module for each kind of layer of the operating system.

The modules with an underscore are loaded by the sandboxed child itself, as top-level modules, and
import the standard library only. `report` is the host's: what the layers are called, what each
is good for, what to do where one is missing.

1. Every layer is tried and none is taken for granted: what a kernel, a container or a policy
   refuses is reported by name and reason (`_layers`), and whether a session may then start is the
   host's to decide.
2. The order matters. Namespaces need rights, so they come first. Then the new root, which can
   only be built while mounting is allowed. Then the limits and the loss of all rights. Then
   Landlock. Last the filter of system calls, which refuses all of these steps.
3. Two layers stand before each thing worth protecting, where the kernel has them: files are
   closed by a root that holds nothing else and by Landlock, the network by a namespace without
   any interface and by the filter.
4. No layer is made of Python: code may rewrite every object in its process and is not less
   contained.
"""
