//! The Supabase project.

use secrecy::SecretString;

use super::{BaseUrl, reader::Reader, variable as var};

/// The Supabase project.
#[derive(Debug, Clone)]
pub struct SupabaseConfig {
    /// SUPABASE_URL.
    pub url: BaseUrl,
    /// SUPABASE_SERVICE_ROLE_KEY.
    pub service_role_key: SecretString,
    /// SUPABASE_STORAGE_BUCKET.
    pub bucket: String,
}

/// `None` unless both the URL and the key are set.
pub(super) fn supabase(read: &mut Reader<'_>) -> Option<SupabaseConfig> {
    if !read.is_set(&var::SUPABASE_URL) {
        return None;
    }
    let url = read.base_url(&var::SUPABASE_URL);
    Some(SupabaseConfig {
        url,
        service_role_key: read.secret(&var::SUPABASE_SERVICE_ROLE_KEY)?,
        bucket: read.text(&var::SUPABASE_STORAGE_BUCKET),
    })
}
