//! Paging and filtering, the same for every list.

use std::{cell::RefCell, collections::BTreeMap};

use medic_state::{
    State,
    manifest::{DEFAULT_TENANT, Kind},
    matcher::Matcher,
};
use tonic::Status;

use super::{
    access::Grant,
    errors::{invalid, not_found},
};

/// Page size where none is asked for.
pub const PAGE_DEFAULT: u32 = 100;
/// Largest page.
pub const PAGE_MAX: u32 = 1_000;
/// Matchers of one request: more is a program gone wrong.
const MATCHERS_MAX: usize = 32;
/// Bytes of a matcher or a token.
const TEXT_MAX: usize = 1_024;

pub(super) type Labels = BTreeMap<String, String>;

/// Labels from pairs.
pub(super) fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a list request asks for, checked.
#[derive(Debug)]
pub(super) struct Paging {
    size: usize,
    token: String,
    matchers: Vec<Matcher>,
}

impl Paging {
    pub(super) fn read(size: u32, token: &str, matchers: &[String]) -> Result<Self, Status> {
        if size > PAGE_MAX {
            return Err(invalid(format!("page_size {size} is above {PAGE_MAX}")));
        }
        if token.len() > TEXT_MAX {
            return Err(bad_token(token));
        }
        if matchers.len() > MATCHERS_MAX {
            let count = matchers.len();
            return Err(invalid(format!("{count} matchers are above {MATCHERS_MAX}")));
        }
        let parse = |text: &String| {
            if text.len() > TEXT_MAX {
                return Err(invalid(format!("a matcher is longer than {TEXT_MAX} bytes")));
            }
            text.parse::<Matcher>().map_err(|bad| invalid(bad.to_string()))
        };
        let matchers = matchers.iter().map(parse).collect::<Result<_, _>>()?;
        let size = if size == 0 { PAGE_DEFAULT } else { size };
        Ok(Self { size: size as usize, token: token.to_owned(), matchers })
    }

    /// Items of a page.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// The key that the page begins after.
    pub(super) fn after<K: std::str::FromStr>(&self) -> Result<Option<K>, Status> {
        if self.token.is_empty() {
            return Ok(None);
        }
        self.token.parse().map(Some).map_err(|_| bad_token(&self.token))
    }

    /// Items of an ordered list that come after the token, where the position in it is a good enough one: each with
    /// the position after it.
    pub(super) fn numbered<T>(
        &self,
        items: impl Iterator<Item = T>,
    ) -> Result<impl Iterator<Item = (String, T)>, Status> {
        let skip = self.after::<usize>()?.unwrap_or(0);
        let numbered = items.zip(1_usize..).skip(skip);
        Ok(numbered.map(|(item, position)| (position.to_string(), item)))
    }

    /// Whether all matchers match. The labels are made only when there is a matcher.
    pub(super) fn matches(&self, labels: impl FnOnce() -> Labels) -> bool {
        if self.matchers.is_empty() {
            return true;
        }
        let labels = labels();
        self.matchers.iter().all(|matcher| matcher.matches(&labels))
    }

    /// One page of items that come after the token and passed all filters, each with its key; and
    /// the token of the next page, empty when there is none.
    pub(super) fn cut<T, M>(
        &self,
        items: impl Iterator<Item = (String, T)>,
        render: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let mut page = Vec::new();
        let mut last = String::new();
        for (key, item) in items {
            if page.len() == self.size {
                return (page, last);
            }
            page.push(render(item));
            last = key;
        }
        (page, String::new())
    }
}

fn bad_token(token: &str) -> Status {
    let head: String = token.chars().take(40).collect();
    invalid(format!("page_token `{head}` is none that a list of this kind gave out"))
}

/// Which tenants a caller sees in one list: those asked for, as far as they are open to them.
pub(super) struct Sight<'a> {
    state: &'a State,
    grant: &'a Grant,
    only: &'a str,
    memo: RefCell<BTreeMap<String, bool>>,
}

impl<'a> Sight<'a> {
    /// Refuses a tenant that is not open to the caller, and one that does not exist.
    pub(super) fn of(state: &'a State, grant: &'a Grant, tenant: &'a str) -> Result<Self, Status> {
        if !tenant.is_empty() {
            grant.check(state, tenant)?;
            if !exists(state, tenant) {
                return Err(not_found(format!("tenant `{tenant}`")));
            }
        }
        Ok(Self { state, grant, only: tenant, memo: RefCell::default() })
    }

    /// Whether things of this tenant are listed.
    pub(super) fn sees(&self, tenant: &str) -> bool {
        if !self.only.is_empty() && self.only != tenant {
            return false;
        }
        if let Some(known) = self.memo.borrow().get(tenant) {
            return *known;
        }
        let opens = self.grant.opens(self.state, tenant);
        self.memo.borrow_mut().insert(tenant.to_owned(), opens);
        opens
    }
}

fn exists(state: &State, tenant: &str) -> bool {
    tenant == DEFAULT_TENANT
        || tenant == "*"
        || state
            .manifests
            .keys()
            .any(|key| key.tenant == tenant || (key.kind == Kind::Tenant && key.name == tenant))
}
