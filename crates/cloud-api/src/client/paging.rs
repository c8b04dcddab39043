//! Reading lists to their end.

use super::EciClient;
use crate::error::EciError;
use crate::model::Action;
use crate::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use crate::model::events::{DescribeContainerGroupEventsRequest, GroupEvents};
use crate::model::status::{DescribeContainerGroupStatusRequest, GroupStatusEntry};

/// Most pages of one list: at 20 a page room for 200,000 groups.
const MAX_PAGES: usize = 10_000;

impl EciClient {
    /// All groups that match, over all pages.
    pub async fn all_container_groups(
        &self,
        mut request: DescribeContainerGroupsRequest,
    ) -> Result<Vec<ContainerGroup>, EciError> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let page = self.call(&request).await?;
            all.extend(page.container_groups);
            request.next_token = page.next_token.filter(|token| !token.is_empty());
            if request.next_token.is_none() {
                return Ok(all);
            }
        }
        Err(EciError::Endless {
            action: DescribeContainerGroupsRequest::NAME,
        })
    }

    /// The status of all groups that match, over all pages.
    pub async fn all_statuses(
        &self,
        request: DescribeContainerGroupStatusRequest,
    ) -> Result<Vec<GroupStatusEntry>, EciError> {
        let mut all = Vec::new();
        self.each_status_page(request, |page| all.extend(page))
            .await?;
        Ok(all)
    }

    /// The status of all groups that match, page by page, so that a long list is never held as a whole.
    pub async fn each_status_page(
        &self,
        mut request: DescribeContainerGroupStatusRequest,
        mut take: impl FnMut(Vec<GroupStatusEntry>),
    ) -> Result<(), EciError> {
        for _ in 0..MAX_PAGES {
            let page = self.call(&request).await?;
            take(page.data);
            request.next_token = page.next_token.filter(|token| !token.is_empty());
            if request.next_token.is_none() {
                return Ok(());
            }
        }
        Err(EciError::Endless {
            action: DescribeContainerGroupStatusRequest::NAME,
        })
    }

    /// The events of all groups that match, over all pages.
    pub async fn all_events(
        &self,
        mut request: DescribeContainerGroupEventsRequest,
    ) -> Result<Vec<GroupEvents>, EciError> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let page = self.call(&request).await?;
            all.extend(page.data);
            request.next_token = page.next_token.filter(|token| !token.is_empty());
            if request.next_token.is_none() {
                return Ok(all);
            }
        }
        Err(EciError::Endless {
            action: DescribeContainerGroupEventsRequest::NAME,
        })
    }
}
