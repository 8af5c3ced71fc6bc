module newservice

go 1.26.0
