//! Deleting all that a list shows.

use crate::object::List;
use crate::registry::Registry;
use crate::request::{DeleteOptions, ListOptions, Request};
use pintle_kinds::ResourceDef;
use pintle_types::Status;

impl Registry {
    /// Deletes what a list would show, and answers that list as it was.
    pub async fn delete_collection(
        &self,
        by: &Request<'_>,
        def: &ResourceDef,
        ns: &str,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<List, Status> {
        let list = self.list(def, ns, which).await?;
        for object in &list.items {
            let value = object.to_value();
            let (ns, name) = (super::meta(&value, "namespace"), super::meta(&value, "name"));
            match self.delete(by, def, ns, name, options).await {
                Ok(_) => {}
                // Somebody else was faster.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok(list)
    }
}
