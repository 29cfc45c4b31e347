"""What the report says and shows: results read, compared, drawn and put on one page.

`reading` reads a file, `loading` a results folder; `compare`, `agreement` and `budget` decide what the numbers say;
`findings`, `captions`, `strategy` and `tables` say it; `figures`, `cost_figures`, `heat_maps` and `weight_figures`
draw; `page` puts all of it into one HTML file. `sama.stages.report` is the stage; nothing here writes a file but
`readme`, which renews the pictures and numbers of README.md.
"""
