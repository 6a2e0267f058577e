//! Tells cargo what the SQL macros read: it does not notice new migrations or query metadata by itself.

fn main() {
    for path in ["migrations", ".sqlx"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for variable in ["DATABASE_URL", "SQLX_OFFLINE"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}
