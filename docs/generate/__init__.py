"""The pages of the documentation that are made from the program itself.

`hook.py` is what mkdocs calls; `site.py` lists the pages; every other file makes one kind of page.  Nothing
here is written to disk: a page is a function of the library, the catalogue, the command line and the tests.
"""
