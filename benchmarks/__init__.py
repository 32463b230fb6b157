"""How fast the gateway is beside others that put TLS before PostgreSQL: ``python -m benchmarks``.

:mod:`peers` says what is measured and how each is configured, :mod:`workloads` by what,
:mod:`rounds` in which order. :mod:`results` has the figures, :mod:`bars` what they are held
against, :mod:`table` and :mod:`plot` show them.
"""
