"""HTML of what was found, made from records alone.

rendering and *.j2   templates: the frame of a page, macros for tables, pictures and players
run_report           report.html of a run folder
findings_tables      notebook 09: every item of the findings, and what to do now
diagnosis_page       the pages of a diagnosis and of a triage; diagnosis_tables: for notebook 08
"""
