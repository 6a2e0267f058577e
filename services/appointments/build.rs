//! cargo does not see by itself that the queries' metadata and the migrations are inputs.

fn main() {
    for input in ["migrations", ".sqlx"] {
        println!("cargo::rerun-if-changed={input}");
    }
    for variable in ["SQLX_OFFLINE", "SQLX_OFFLINE_DIR", "DATABASE_URL"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}
