"""Studies: grids of runs as data (``experiments/*.toml``), carried out once each, and what the grid as a whole says.

``study`` what a study is, ``grid`` the runs it asks for, ``job`` and ``executors`` how they are carried out,
``outcomes`` what they reached, ``cells`` and ``comparisons`` estimates with intervals, ``published`` the papers' numbers.
"""
