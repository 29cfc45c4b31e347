"""What the report says and shows: results read, compared, drawn and put on one page.

`loading` reads a results folder, `compare` decides what the seeds allow to be said, `captions` says it, `figures`
draws, `page` puts all of it into one HTML file. `sama.stages.report` is the stage; nothing here writes a file but
`readme`, which renews the pictures and numbers of README.md.
"""
