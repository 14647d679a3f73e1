// Command headgate-worker runs inside the sandbox.
package main

import (
	"database/sql"
	"fmt"

	_ "github.com/duckdb/duckdb-go/v2"
)

func main() {
	db, _ := sql.Open("duckdb", "")
	var v string
	_ = db.QueryRow("select version()").Scan(&v)
	fmt.Println(v)
}
