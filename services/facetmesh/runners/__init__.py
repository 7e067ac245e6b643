"""Isolated processes for native code, and the engines that run in them.

`pool.RunnerPool` is what a service uses: one child process for each isolation
domain (a tenant), spawned when first needed, watched, and replaced when it dies.
What runs inside is a *program*: a module, imported in the child only, with a
mapping `TASKS` of task names to functions (`tasks.Task`).

Parent side: `pool`, `runner`, `spawn`, `stderr`, `quarantine`, `probe`,
`settings`. Child side: `worker`, `sandbox`, and for programs to use, `engines`,
`images` and `stopwatch`. Both: `frames`, `tasks`. No service imports the child's side: it
loads native code.
"""
