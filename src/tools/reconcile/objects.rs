//! The bucket's objects, as a source of what the log has lost.

use std::collections::HashMap;

use idol_actors::{
    id::ConversationId,
    log::sqlite::CatalogueRow,
    mirror::{
        imported::ImportedDocument,
        supabase::{Metadata, SupabaseClient},
    },
};

use super::{Act, Trouble, begin_again};
use crate::tools::{
    Opened, ToolError,
    bucket::{self, Named, named},
};

/// The bucket as it was listed.
pub(super) struct Objects {
    pub(super) reader: Reader,
    /// The key of each conversation's document.
    pub(super) keys: HashMap<ConversationId, String>,
}

/// Reads single objects.
pub(super) struct Reader {
    client: SupabaseClient,
}

impl Objects {
    pub(super) async fn list(client: SupabaseClient) -> Result<Self, ToolError> {
        let mut keys = HashMap::new();
        let mut listing = bucket::list(&client).await?;
        while let Some(page) = bucket::next_page(&mut listing).await? {
            for object in page {
                let Named::Document(id) = named(&object.key) else {
                    continue;
                };
                // Of two spellings the canonical one is the mirror's.
                let canonical = object.key.strip_suffix(".json") == Some(id.as_str());
                if canonical || !keys.contains_key(&id) {
                    keys.insert(id, object.key);
                }
            }
        }
        let reader = Reader { client };
        Ok(Self { reader, keys })
    }
}

impl Reader {
    /// The copy of a conversation, if it may hold more than the log.
    pub(super) async fn ahead(
        &self,
        opened: &Opened,
        row: &CatalogueRow,
        key: &str,
    ) -> Result<Option<ImportedDocument>, Trouble> {
        let info = bucket::info(&self.client, key).await?;
        let metadata = info.ok_or(Trouble::Vanished)?.metadata;
        let may_be_ahead = |it: &Metadata| {
            it.log == opened.log.log_id() && it.incarnation == row.incarnation && it.seq > row.seq
        };
        if !metadata.as_ref().is_none_or(may_be_ahead) {
            return Ok(None);
        }
        let copy = self.document(&row.id, key).await?;
        // Without metadata, the text says of which log it is.
        Ok(copy.filter(|copy| {
            copy.revision.as_ref().is_some_and(|it| {
                it.log == opened.log.log_id()
                    && it.incarnation == row.incarnation
                    && it.seq > row.seq
            })
        }))
    }

    /// A conversation that the log has lost as a whole begins again from its object.
    pub(super) async fn lost(
        &self,
        opened: &Opened,
        id: &ConversationId,
        key: &str,
        act: Act,
    ) -> Result<Option<usize>, Trouble> {
        let info = bucket::info(&self.client, key).await?;
        let metadata = info.ok_or(Trouble::Vanished)?.metadata;
        if metadata.is_some_and(|it| it.log != opened.log.log_id()) {
            return Ok(None);
        }
        let Some(document) = self.document(id, key).await? else {
            return Ok(None);
        };
        let begun = begin_again(opened, id, &document, act).await?;
        Ok(begun.map(|(messages, _)| messages))
    }

    /// `None`: it is no document.
    async fn document(
        &self,
        id: &ConversationId,
        key: &str,
    ) -> Result<Option<ImportedDocument>, Trouble> {
        let bytes = bucket::download(&self.client, key).await?;
        let bytes = bytes.ok_or(Trouble::Vanished)?;
        Ok(ImportedDocument::parse(id, &bytes).ok())
    }
}
