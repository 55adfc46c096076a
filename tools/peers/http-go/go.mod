module peers/http

go 1.24
