"""Fuzzing of everything that reads what comes from outside: targets, corpora, and the command.

``python -m tests.fuzz`` looks for inputs that break a target (it needs atheris);
``tests/unit/test_fuzz_corpora.py`` gives each target its corpus.
"""
